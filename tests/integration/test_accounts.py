"""An account is good on its own profile (SEC04) and for as long as it is valid (SEC07)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.load.client import Client, http01_of
from e2e.load.exchange import Exchange
from e2e.support.dns import Addresses
from tests.support.eventually import becomes
from tests.support.installation import Installation, refusal


@pytest.fixture
def another_team(installation: Installation, team: str) -> Iterator[str]:
    name = f"{team}-another"
    installation.cluster.kubectl("create", "namespace", name)
    yield name
    installation.cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.requirement("SEC04")
async def test_an_account_does_not_exist_on_another_profile_even_if_its_key_has_an_account_there(
    installation: Installation, team: str, another_team: str
) -> None:
    here, there = installation.open_profile(team), installation.open_profile(another_team)
    async with installation.client(here) as client, Exchange(there.directory_url, tls=there.tls) as exchange:
        order = await client.new_order(["here.test"])
        stranger = Client(exchange, client.key, account_url=client.account_url)
        assert await refusal(stranger.new_order(["there.test"])) == "accountDoesNotExist"
        resident = Client(exchange, client.key)
        await resident.register()
        assert resident.account_url != client.account_url
        assert await refusal(stranger.new_order(["there.test"])) == "accountDoesNotExist"
        assert await refusal(resident.order(order.url)) == "accountDoesNotExist"
        assert (await client.order(order.url)).status == "pending"


@pytest.mark.requirement("S104", "SEC07")
async def test_a_challenge_that_is_met_after_the_deactivation_of_the_account_does_not_count(
    installation: Installation, team: str
) -> None:
    async with installation.client(installation.open_profile(team)) as client:
        installation.zone.set("late.test", Addresses("127.0.0.1", delay=1.5))
        order = await client.new_order(["late.test"])
        challenge = http01_of(await client.authorization(order.authorizations[0]))
        installation.answerer.add(challenge["token"], client.key.thumbprint)
        await client.respond(challenge)
        assert client.account_url is not None
        await client.post("account", client.account_url, {"status": "deactivated"})

    name = order.url.rpartition("/")[2]

    async def is_settled() -> bool:
        logs = (server.log.read_text().splitlines() for server in installation.programs.servers)
        return any("challenge invalid" in line and name in line for lines in logs for line in lines)

    await becomes(is_settled)  # the proof was there, and came too late
    status = installation.order(team, order.url)["status"]
    assert status["state"] == "invalid"
    assert status["error"]["detail"] == "The account was deactivated."
    assert [each["state"] for each in status["authorizations"][0]["challenges"]] != ["valid"]
