"""A team uses lego (the client inside Traefik), as Debian ships it, with the same profile as everybody."""

from __future__ import annotations

import pytest

from e2e.stories.clients import Lego, key_in, names_in, refused, succeeded
from e2e.stories.story import Credential, Story
from tests.support.installation import PROFILE


def test_run_opens_an_account_and_obtains_a_certificate_and_renew_another_one(
    lego: Lego, story: Story, credential: Credential
) -> None:
    names = [story.name(label) for label in ("web", "api")]
    succeeded(lego.run("run", *names, credential=credential))
    assert names_in(lego.file(names[0])) == set(names)
    before = lego.file(names[0]).read_bytes()
    # lego wants the binding on every command line where the directory says that it is required, and sends it again.
    succeeded(lego.run("renew --days=3650 --no-random-sleep", *names, credential=credential))
    assert names_in(lego.file(names[0])) == set(names)
    assert lego.file(names[0]).read_bytes() != before
    first, second = story.orders(*names)
    assert first["spec"]["accountRef"] == second["spec"]["accountRef"]


@pytest.mark.parametrize(
    ("key_type", "key"),
    [("ec256", "ECDSA-P256"), ("ec384", "ECDSA-P384"), ("rsa2048", "RSA-2048"), ("rsa4096", "RSA-4096")],
)
def test_account_and_certificate_may_have_keys_of_the_type(  # lego makes both of the same type
    lego: Lego, story: Story, credential: Credential, key_type: str, key: str
) -> None:
    name = story.name(key_type)
    succeeded(lego.run("run", name, args=(f"--key-type={key_type}",), credential=credential))
    assert key_in(lego.file(name)) == key


def test_a_name_that_the_policy_does_not_allow_is_refused_with_name_rule_and_policy(
    lego: Lego, story: Story, credential: Credential
) -> None:
    said = refused(lego.run("run", "www.example.org", credential=credential))
    assert "urn:ietf:params:acme:error:rejectedIdentifier" in said
    assert "www.example.org" in said
    assert f"is not allowed by policy {story.namespace}/{PROFILE} (spec.dnsNames.allowed)" in said


def test_an_ip_address_that_lego_calls_a_dns_name_is_refused_before_anything_is_asked_of_it(
    lego: Lego, story: Story, credential: Credential
) -> None:
    said = refused(lego.run("run", "127.0.0.1", credential=credential))
    assert "urn:ietf:params:acme:error:malformed" in said
    assert "127.0.0.1" in said
    assert story.orders("127.0.0.1") == []
