"""What orders take in etcd: the limits are in bytes, and count at least what the API server stores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from acme_server.orders.admission import MAXIMUM_NAME_CHARACTERS
from acme_server.state.weight import weigh_order
from e2e.load.client import Client, Order, http01_of
from kms.cluster.codec import decode
from kms.resources.kinds import ORDERS
from tests.support.eventually import becomes
from tests.support.installation import Installation

NAMES = 100
LENGTH = MAXIMUM_NAME_CHARACTERS // NAMES
KILO = 1_000


def longest(prefix: str, number: int) -> str:
    """One of a hundred names that are as long together as names of an order may be."""
    name = f"{prefix}{number:03}." + "l" * 63 + ".test"
    return "n" * (LENGTH - len(name)) + name


@pytest.fixture
async def client(installation: Installation, team: str) -> AsyncIterator[Client]:
    async with installation.client(installation.open_profile(team)) as client:
        yield client


def stored(installation: Installation, namespace: str, order: Order) -> int:
    """The octets of the order as etcd holds it, managedFields included. It does not weigh less."""
    path = f"/apis/{ORDERS.api_version}/namespaces/{namespace}/{ORDERS.plural}/{order.url.rpartition('/')[2]}"
    document = json.loads(installation.cluster.kubectl("get", "--raw", path))
    octets = len(json.dumps(document, separators=(",", ":")))
    assert octets <= weigh_order(decode(ORDERS, json.dumps(document).encode()))
    return octets


async def failed(client: Client, order: Order) -> Order:
    """The order after answers to all its challenges that prove nothing."""

    async def answer(url: str) -> None:
        await client.respond(http01_of(await client.authorization(url)))

    await asyncio.gather(*(answer(url) for url in order.authorizations))

    async def is_over() -> bool:
        return (await client.order(order.url)).status == "invalid"

    await becomes(is_over)
    return await client.order(order.url)


@pytest.mark.requirement("SEC72")
async def test_orders_with_as_many_and_as_long_names_as_they_may_have_take_little(
    installation: Installation, client: Client, team: str
) -> None:
    order = await client.new_order([longest("f", number) for number in range(NAMES)])
    pending = stored(installation, team, order)
    invalid = stored(installation, team, await failed(client, order))
    names = [longest("v", number) for number in range(NAMES)]
    valid = stored(installation, team, (await client.obtain(names, installation.answerer.add)).order)
    print(f"{pending} pending, {invalid} failed, {valid} valid")
    # Before, with names that could be three times as long: 80, 243 and 78 kB, and more with each type of challenge.
    assert pending < 20 * KILO
    assert invalid < 60 * KILO
    assert valid < 60 * KILO


@pytest.mark.requirement("SEC72")
async def test_an_order_with_one_name_takes_little(installation: Installation, client: Client, team: str) -> None:
    order = await client.new_order(["one.test"])
    pending = stored(installation, team, order)
    certificate = await client.obtain(["two.test"], installation.answerer.add)
    valid = stored(installation, team, certificate.order)
    print(f"{pending} pending, {valid} valid")
    assert pending < 1_600
    assert valid < 4_500
