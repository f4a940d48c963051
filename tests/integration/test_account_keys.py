"""Key changes and the list of orders on two servers and the real API server (RFC 8555, 7.3.5 and 7.1.2.1)."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter

import pytest

from acme_server.state.account_keys import account_name
from e2e.load.client import Client, Refused
from e2e.load.exchange import Answer, Exchange
from e2e.load.keys import AccountKey, certificate_key, certificate_request
from e2e.support.enrollment import enrollment_of
from tests.support.installation import PROFILE, Installation, refusal


async def change(client: Client, new: AccountKey) -> Answer:
    """Ask for another key; the client goes on with the old one."""
    url = (await client.exchange.directory())["keyChange"]
    members = {"account": client.account_url, "oldKey": client.key.jwk}
    return await client.post("key-change", url, new.jws({"alg": "ES256", "jwk": new.jwk, "url": url}, members))


def aliases(installation: Installation, team: str) -> dict[str, str]:
    """What the aliases stand for, by their names."""
    found = installation.objects("acmeaccounts", team)
    return {each["metadata"]["name"]: each["spec"]["aliasOf"]["name"] for each in found if "aliasOf" in each["spec"]}


@pytest.mark.requirement("M99", "M100", "SEC17")
async def test_an_account_goes_on_with_another_key_at_both_servers_at_once(
    installation: Installation, client: Client, team: str
) -> None:
    assert client.account_url is not None
    first = client.key
    for number in range(4):
        order = await installation.proven(client, f"kept-{number}.test")
        old, new = client.key, AccountKey.generate()
        assert (await change(client, new)).location == client.account_url
        client.key = new
        finalized = await client.finalize(order, certificate_request([f"kept-{number}.test"], certificate_key()))
        assert finalized.status == "valid"
        assert await refusal(Client(client.exchange, old, account_url=client.account_url).new_order(["x.test"]))
        await client.obtain([f"new-{number}.test"], installation.answerer.add)
        assert (await client.register(only_return_existing=True)).status == 200
    name = client.account_url.rpartition("/")[2]
    assert set(aliases(installation, team).values()) == {name}
    account = installation.object("acmeaccount", team, name)
    assert account["status"]["key"]["thumbprint"] == client.key.thumbprint
    assert account["status"]["formerKeys"][0] == first.thumbprint
    assert len(account["status"]["formerKeys"]) == len(aliases(installation, team)) == 4
    gone = Client(client.exchange, first)
    assert await refusal(gone.register(only_return_existing=True)) == "accountDoesNotExist"
    assert await refusal(gone.register()) == "badPublicKey"


@pytest.mark.requirement("SEC23", "M83")
async def test_of_two_changes_at_once_at_both_servers_one_wins_and_the_other_leaves_nothing(
    installation: Installation, client: Client, servers: tuple[str, str], team: str
) -> None:
    enrollment = enrollment_of(installation.cluster, team, PROFILE)
    async with (
        Exchange(enrollment.directory_url, tls=enrollment.tls, servers=servers[:1]) as here,
        Exchange(enrollment.directory_url, tls=enrollment.tls, servers=servers[1:]) as there,
    ):
        for number in range(6):
            same = bool(number % 2)
            keys = [AccountKey.generate(), AccountKey.generate()]
            wanted = [keys[0], keys[0 if same else 1]]
            pair = [Client(each, client.key, account_url=client.account_url) for each in (here, there)]
            before = aliases(installation, team)
            results = await asyncio.gather(*map(change, pair, wanted), return_exceptions=True)
            (winner,) = [
                key for key, result in zip(wanted, results, strict=True) if not isinstance(result, BaseException)
            ]
            assert all(isinstance(each, Answer | Refused) for each in results), results
            client.key = winner
            await client.new_order([f"after-{number}.test"])
            added = aliases(installation, team).keys() - before.keys()
            assert added == {account_name(team, PROFILE, winner.thumbprint)}


@pytest.mark.requirement("M83", "M98")
async def test_a_key_that_is_registered_and_taken_over_at_once_belongs_to_one_account(
    installation: Installation, client: Client, servers: tuple[str, str], team: str
) -> None:
    enrollment = enrollment_of(installation.cluster, team, PROFILE)
    async with Exchange(enrollment.directory_url, tls=enrollment.tls, servers=servers[1:]) as there:
        for _ in range(6):
            new = AccountKey.generate()
            newcomer = Client(there, new)
            results = await asyncio.gather(change(client, new), newcomer.register(), return_exceptions=True)
            changed = not isinstance(results[0], BaseException)
            if isinstance(results[0], Refused):
                assert results[0].answer.status == 409
                assert results[0].answer.location == newcomer.account_url
            found = await Client(there, new).register(only_return_existing=True)
            assert (found.location == client.account_url) is changed
            if changed:
                client.key = new


@pytest.mark.requirement("M54", "M55")
async def test_a_long_list_of_orders_is_read_page_by_page(installation: Installation, client: Client) -> None:
    created = {(await client.new_order([f"listed-{number}.test"])).url for number in range(103)}
    url: str | None = f"{client.account_url}/orders"
    seen: list[str] = []
    sizes: Counter[int] = Counter()
    while url is not None:
        page = await client.post("orders", url)
        seen += page.json()["orders"]
        sizes[len(page.json()["orders"])] += 1
        url = next(iter(page.links("next")), None)
    assert sizes == {100: 1, 3: 1}
    assert (len(seen), set(seen)) == (103, created)
    # What leads on is the API server's own: made up, it is refused as what it is.
    with pytest.raises(Refused) as caught:
        await client.post("orders", f"{client.account_url}/orders/made-up")
    assert (caught.value.answer.status, caught.value.answer.problem_type) == (404, "malformed")
    assert "from its beginning" in json.dumps(caught.value.answer.problem)


@pytest.mark.requirement("SEC64")
async def test_the_log_tells_of_a_change_without_telling_a_key(
    installation: Installation, client: Client, servers: tuple[str, str]
) -> None:
    new = AccountKey.generate()
    await change(client, new)
    logs = "".join(each.log.read_text() for each in installation.programs.servers if each.url in servers)
    assert re.search("account key changed", logs)
    assert new.jwk["x"] not in logs
