from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from e2e.load.client import Client, OrderFailed, Refused
from e2e.load.drive import ORDER, SHOWN_ERRORS, Load, Tally, kind_of, merge
from e2e.load.exchange import Exchange, ProtocolError
from e2e.load.keys import AccountKey, certificate_id
from e2e.load.solvers import ByHTTP
from tests.support.scripted_acme import ScriptedAcme, problem, running_acme


@pytest.fixture
async def client(acme: ScriptedAcme) -> AsyncIterator[Client]:
    async with Exchange(f"{acme.base}/directory") as exchange:
        client = Client(exchange, AccountKey.generate())
        await client.register()
        yield client


def load(*clients: Client, in_flight: int = 3) -> Load:
    return Load(clients, in_flight, names=lambda n: [f"o{n}.load.test"], solver=ByHTTP(lambda *_: None), keep=True)


async def test_each_number_is_ordered_once(acme: ScriptedAcme, client: Client) -> None:
    calls: list[int] = []
    tally = await load(client).drive(range(5, 12), lambda: calls.append(1))
    assert tally.orders == len(calls) == 7
    ordered = [each.payload["identifiers"][0]["value"] for each in acme.seen if each.step == "new-order"]
    assert sorted(ordered) == sorted(f"o{number}.load.test" for number in range(5, 12))
    assert len(tally.latencies[ORDER]) == len(tally.latencies["finalize"]) == 7
    assert tally.seconds > 0
    assert not tally.errors


async def test_what_was_obtained_is_renewed_by_the_same_client_in_its_place(acme: ScriptedAcme, client: Client) -> None:
    orders = load(client)
    await orders.drive(range(4), lambda: None)
    acme.seen.clear()
    tally = await orders.renew(range(1, 4), lambda: None)
    assert (tally.orders, tally.errors) == (3, {})
    assert acme.count()["renewal-info"] == len(tally.latencies["renewal-info"]) == 3
    replaced = [each.payload["replaces"] for each in acme.seen if each.step == "new-order"]
    assert sorted(replaced) == sorted(certificate_id(orders.kept[number][1].leaf) for number in range(1, 4))
    assert acme.count()["challenge"] == 0  # the authorizations were still valid


async def test_an_order_that_fails_is_counted_and_the_next_one_begun(acme: ScriptedAcme, client: Client) -> None:
    acme.script("new-order", problem("rateLimited", 429), web.Response(status=500))
    tally = await load(client, in_flight=1).drive(range(4), lambda: None)
    assert tally.orders == 2
    assert tally.errors == {"429 rateLimited": 1, "breach of RFC 8555": 1}
    assert "said rateLimited" in tally.texts["429 rateLimited"][0]


async def test_a_server_that_goes_away_is_an_error_of_every_order() -> None:
    async with running_acme() as acme, Exchange(f"{acme.base}/directory") as exchange:
        client = Client(exchange, AccountKey.generate())
        await client.register()
        await acme.stop()
        tally = await load(client).drive(range(2), lambda: None)
    assert tally.orders == 0
    assert sum(tally.errors.values()) == 2
    assert all(kind.startswith("connection (") for kind in tally.errors)


async def test_an_error_has_a_kind(acme: ScriptedAcme, client: Client) -> None:
    acme.script("new-order", problem("badCSR", 400))
    with pytest.raises(Refused) as caught:
        await client.new_order(["a.test"])
    assert kind_of(caught.value) == "400 badCSR"
    assert kind_of(ProtocolError("x")) == "breach of RFC 8555"
    assert kind_of(OrderFailed("x")) == "order failed"
    assert kind_of(TimeoutError()) == "timeout"
    assert kind_of(aiohttp.ServerDisconnectedError()) == "connection (ServerDisconnectedError)"


def test_only_some_texts_of_a_kind_are_kept() -> None:
    tally = Tally()
    for number in range(SHOWN_ERRORS * 2):
        tally.add_error(OrderFailed(f"number {number}"))
    assert tally.errors["order failed"] == SHOWN_ERRORS * 2
    assert tally.texts["order failed"] == [f"number {number}" for number in range(SHOWN_ERRORS)]


def test_tallies_add_up() -> None:
    first, second = Tally(seconds=1.0, orders=2), Tally(seconds=2.0, orders=3)
    first.add_duration("finalize", 0.1)
    second.add_duration("finalize", 0.2)
    for tally in (first, second):
        for _ in range(SHOWN_ERRORS):
            tally.add_error(TimeoutError())
    total = merge([first, second])
    assert (total.seconds, total.orders) == (3.0, 5)
    assert total.latencies == {"finalize": [0.1, 0.2]}
    assert total.errors == {"timeout": SHOWN_ERRORS * 2}
    assert len(total.texts["timeout"]) == SHOWN_ERRORS
