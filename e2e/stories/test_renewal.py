"""An administrator asks for early renewal, and the clients of every team follow (RFC 9773)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509

from e2e.stories.caddy import Caddy
from e2e.stories.clients import Certbot, succeeded
from e2e.stories.story import SITE_ADDRESS, Credential, Story
from e2e.support.dns import Addresses

LIFETIME = "150s"
"""Short, since the window of a certificate is as wide as a part of its lifetime."""


@pytest.fixture(autouse=True)
def short_lived(story: Story) -> None:
    story.profile(certificate={"duration": LIFETIME}, renewIssuedBefore=None)


@pytest.mark.requirement("ARI-M3", "ARI-M6")
def test_certbot_renews_what_was_asked_for_though_half_of_its_lifetime_has_not_passed(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    name = story.name("certbot")
    succeeded(certbot.certonly(name, credential=credential))
    before = x509.load_pem_x509_certificate(certbot.file(name, "cert").read_bytes())
    story.renew_early(before)
    said = succeeded(certbot.renew()).words
    assert "all renewals succeeded" in said
    after = x509.load_pem_x509_certificate(certbot.file(name, "cert").read_bytes())
    assert after.serial_number != before.serial_number
    assert len(story.orders(name)) == 2  # this certbot does not say which certificate it replaces


def test_certbot_leaves_alone_what_nobody_asked_for(certbot: Certbot, story: Story, credential: Credential) -> None:
    name = story.name("left-alone")
    succeeded(certbot.certonly(name, credential=credential))
    assert "not yet due for renewal" in succeeded(certbot.renew()).words
    assert len(story.orders(name)) == 1
    assert "ari_retry_after" in (certbot.folder / "config" / "renewal" / f"{name}.conf").read_text()


@pytest.mark.requirement("ARI-M6", "SEC25")
def test_caddy_replaces_what_the_administrator_has_revoked_and_takes_another_key(caddy: Caddy, story: Story) -> None:
    name = story.name("revoked", Addresses(SITE_ADDRESS))
    story.profile(certificate={"duration": "720h"})
    site = replace(caddy, names=(name,))
    with site.serving():
        before = site.certificate(name)
    story.revoke(name, reason="keyCompromise")
    site.hours_pass()
    with site.serving():
        after = site.certificate(name, other_than=before)
    assert after.public_key() != before.public_key()
    assert after.not_valid_after_utc >= before.not_valid_after_utc


@pytest.mark.requirement("ARI-M3", "ARI-M6")
def test_caddy_renews_by_itself_what_was_asked_for(caddy: Caddy, story: Story) -> None:
    name = story.name("caddy", Addresses(SITE_ADDRESS))
    site = replace(caddy, names=(name,))
    with site.serving():
        before = site.certificate(name)
    story.renew_early(before)
    site.hours_pass()
    with site.serving():
        after = site.certificate(name, other_than=before)
    site.said("certificate needs renewal based on ARI window")
    serials = {int(order["status"]["serialNumber"], 16) for order in story.orders(name)}
    assert serials == {before.serial_number, after.serial_number}  # nor does this Caddy say which one it replaces
