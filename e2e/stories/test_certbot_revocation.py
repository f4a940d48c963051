"""A team revokes with certbot what it has, and keeps or changes its keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from e2e.stories.clients import Certbot, refused, serial_in, succeeded
from e2e.stories.story import Credential, Story


def revocation(story: Story, name: str) -> str:
    """The revocation reason of the only certificate for a name, as kubectl shows it."""
    (order,) = story.orders(name)
    return str(order["status"]["revocation"]["reason"])


def public_key(pem: Path) -> object:
    return x509.load_pem_x509_certificate(pem.read_bytes()).public_key()


def test_reuse_key_keeps_the_key_and_a_new_key_comes_only_when_it_is_asked_for(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    name = story.name("same-key")
    succeeded(certbot.certonly(name, credential=credential, args=("--reuse-key",)))
    first, key = serial_in(certbot.file(name)), public_key(certbot.file(name))
    succeeded(certbot.renew("--force-renewal"))
    assert serial_in(certbot.file(name)) != first
    assert public_key(certbot.file(name)) == key
    succeeded(certbot.renew("--force-renewal", "--new-key"))
    assert public_key(certbot.file(name)) != key


@pytest.mark.requirement("M136", "M138", "M139")
def test_the_account_revokes_and_is_told_when_that_was_done_before(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    name = story.name("by-account")
    succeeded(certbot.certonly(name, credential=credential))
    succeeded(certbot.revoke(f"--cert-name={name}"))
    assert revocation(story, name) == "unspecified"
    assert "The certificate is revoked already." in refused(certbot.revoke(f"--cert-name={name}"))


@pytest.mark.requirement("M136")
def test_whoever_has_the_key_of_a_certificate_revokes_without_the_account(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    name = story.name("by-key")
    succeeded(certbot.certonly(name, credential=credential))
    finder = Certbot(certbot.program, story, certbot.folder.parent / "finder")
    certificate, key = certbot.file(name, "cert"), certbot.file(name, "privkey")
    succeeded(finder.revoke(f"--cert-path={certificate}", f"--key-path={key}", "--reason=keycompromise"))
    assert finder.accounts == []
    assert revocation(story, name) == "keyCompromise"


@pytest.mark.requirement("M136")
def test_another_account_may_not_revoke(certbot: Certbot, story: Story, credential: Credential) -> None:
    name = story.name("not-theirs")
    succeeded(certbot.certonly(name, credential=credential))
    stranger = Certbot(certbot.program, story, certbot.folder.parent / "stranger")
    succeeded(stranger.register(credential))
    said = refused(stranger.revoke(f"--cert-path={certbot.file(name, 'cert')}"))
    assert "this one has no valid authorization for all names" in said
    (order,) = story.orders(name)
    assert "revocation" not in order["status"]


def test_a_key_that_was_compromised_gets_no_certificate_any_more(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    name = story.name("compromised")
    succeeded(certbot.certonly(name, credential=credential, args=("--reuse-key",)))
    succeeded(certbot.revoke(f"--cert-name={name}", "--reason=keycompromise"))
    said = refused(certbot.renew("--force-renewal"))
    assert "compromise" in said
    succeeded(certbot.renew("--force-renewal", "--new-key"))
