"""A team uses lego, as Debian ships it, with every type of challenge that it knows."""

from __future__ import annotations

import pytest

from e2e.stories.clients import Lego, names_in, refused, serial_in, succeeded
from e2e.stories.story import Credential, Story
from e2e.support.dns import Alias

pytestmark = pytest.mark.usefixtures("all_challenges")
CHALLENGES = {"http": "http-01", "tls": "tls-alpn-01", "exec": "dns-01", "httpreq": "dns-01"}


@pytest.mark.parametrize(("challenge", "type_"), CHALLENGES.items(), ids=CHALLENGES)
def test_two_names_are_proved_by_challenges_of_the_type_that_was_asked_for(
    lego: Lego, story: Story, credential: Credential, challenge: str, type_: str
) -> None:
    names = [story.name(f"{label}-{challenge}") for label in ("web", "api")]
    succeeded(lego.run("run", *names, challenge=challenge, credential=credential))
    assert names_in(lego.file(names[0])) == set(names)
    (order,) = story.orders(*names)
    for authorization in order["status"]["authorizations"]:
        assert [each["type"] for each in authorization["challenges"] if each["state"] == "valid"] == [type_]


def test_a_wildcard_goes_by_dns(lego: Lego, story: Story, credential: Credential) -> None:
    base = story.name("wild")
    succeeded(lego.run("run", f"*.{base}", base, challenge="httpreq", credential=credential))
    assert names_in(lego.file(f"*.{base}")) == {f"*.{base}", base}


@pytest.mark.requirement("M151")
def test_a_record_may_be_delegated_to_another_name(lego: Lego, story: Story, credential: Credential) -> None:
    name, delegated = story.name("delegated"), f"proofs.{story.namespace}.test"
    story.installation.zone.set(f"_acme-challenge.{name}", Alias(delegated))
    succeeded(lego.run("run", name, challenge="httpreq", credential=credential))  # which follows the alias itself
    assert names_in(lego.file(name)) == {name}


@pytest.mark.requirement("M139")
def test_revoking_twice_is_told_as_that(lego: Lego, story: Story, credential: Credential) -> None:
    name = story.name("revoked")
    succeeded(lego.run("run", name, credential=credential))
    succeeded(lego.run("revoke --keep", name, credential=credential))
    (order,) = story.orders(name)
    assert order["status"]["revocation"]["time"]
    assert "alreadyRevoked" in refused(lego.run("revoke --keep", name, credential=credential))


def test_a_renewal_may_keep_its_key(lego: Lego, story: Story, credential: Credential) -> None:
    name = story.name("kept-key")
    succeeded(lego.run("run", name, credential=credential))
    serial, key = serial_in(lego.file(name)), lego.file(name, "key").read_bytes()
    succeeded(lego.run("renew --days=3650 --no-random-sleep --reuse-key", name, credential=credential))
    assert serial_in(lego.file(name)) != serial
    assert lego.file(name, "key").read_bytes() == key
