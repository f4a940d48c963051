"""A team uses certbot with hooks of its own, and for what is not just a name: wildcards and addresses."""

from __future__ import annotations

import pytest

from e2e.stories.clients import Certbot, addresses_in, names_in, refused, succeeded
from e2e.stories.story import CLIENT_ADDRESS, Credential, Story
from e2e.support.dns import Addresses

pytestmark = pytest.mark.usefixtures("all_challenges")
HERE = Addresses("127.0.0.1")
"""The address of the web server for the files of hooks."""


def types_of(story: Story, *names: str) -> set[str]:
    """The types of the valid challenges in the orders for these names."""
    return {
        challenge["type"]
        for order in story.orders(*names)
        for authorization in order["status"]["authorizations"]
        for challenge in authorization["challenges"]
        if challenge["state"] == "valid"
    }


def test_a_hook_puts_the_file_on_a_web_server(certbot: Certbot, story: Story, credential: Credential) -> None:
    names = [story.name(label, HERE) for label in ("file", "other-file")]
    succeeded(certbot.manual("http", *names, credential=credential))
    assert names_in(certbot.file(names[0])) == set(names)
    assert types_of(story, *names) == {"http-01"}


@pytest.mark.requirement("M151")
def test_a_hook_publishes_a_record_and_takes_it_back(certbot: Certbot, story: Story, credential: Credential) -> None:
    names = [story.name(label) for label in ("record", "other-record")]
    succeeded(certbot.manual("dns", *names, credential=credential))
    assert names_in(certbot.file(names[0])) == set(names)
    assert types_of(story, *names) == {"dns-01"}
    assert not story.installation.zone.published(f"_acme-challenge.{names[0]}")


@pytest.mark.requirement("M57", "M151")
def test_a_wildcard_and_its_base_name_are_proved_by_two_records_of_one_name(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    base = story.name("wild")
    succeeded(certbot.manual("dns", f"*.{base}", base, credential=credential))
    assert names_in(certbot.file(base)) == {f"*.{base}", base}


@pytest.mark.requirement("M150")
def test_a_wildcard_cannot_be_proved_by_a_file(certbot: Certbot, story: Story, credential: Credential) -> None:
    base = story.name("wild-file", HERE)
    said = refused(certbot.manual("http", f"*.{base}", credential=credential))
    assert "Client with the currently selected authenticator does not support any combination of challenges" in said


@pytest.mark.requirement("IP-M1", "IP-M3", "IP-M6")
def test_an_address_may_have_a_certificate(certbot: Certbot, story: Story, credential: Credential) -> None:
    succeeded(certbot.certonly(args=(f"--ip-address={CLIENT_ADDRESS}",), credential=credential))
    assert addresses_in(certbot.file(CLIENT_ADDRESS)) == {CLIENT_ADDRESS}
    assert names_in(certbot.file(CLIENT_ADDRESS)) == set()


def test_an_address_and_a_name_may_share_a_certificate(certbot: Certbot, story: Story, credential: Credential) -> None:
    name = story.name("shared")
    succeeded(certbot.certonly(name, args=(f"--ip-address={CLIENT_ADDRESS}",), credential=credential))
    assert (names_in(certbot.file(name)), addresses_in(certbot.file(name))) == ({name}, {CLIENT_ADDRESS})


@pytest.mark.requirement("IP-M8")
def test_an_address_that_the_policy_does_not_allow_is_refused(
    certbot: Certbot, story: Story, credential: Credential
) -> None:
    said = refused(certbot.certonly(args=("--ip-address=192.0.2.7",), credential=credential))
    assert "192.0.2.7" in said
    assert "spec.ipAddresses.allowed" in said
    assert story.orders("192.0.2.7") == []
