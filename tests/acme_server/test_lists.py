"""What requests of clients list: only what identifies, in pages, and never all orders of an account whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support import pki
from tests.support.acme import ClientKey, b64
from tests.support.apiserver import Seen
from tests.support.domain import World
from tests.support.server import Answer, Server, running_server

MANY = 30
UNKNOWN = pki.root().certificate
"""A certificate that no profile has issued."""

pytestmark = pytest.mark.requirement("SEC74")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server that knows all orders, and a client with many."""
    async with running_server() as running:
        running.world.services.state.order_index.mark_complete()
        await running.register()
        for number in range(MANY):
            assert (await running.order(f"{number}.example.com")).status == 201
        yield running


async def revoke(server: Server, der: bytes = UNKNOWN.public_bytes(Encoding.DER)) -> Answer:
    return await server.post(f"{server.base}/revoke-cert", {"certificate": b64(der)})


def lists(world: World, since: int) -> list[Seen]:
    return [each for each in world.api.requests[since:] if each.verb == "list"]


async def test_a_certificate_that_nobody_knows_is_looked_for_in_memory(server: Server) -> None:
    before = len(server.world.api.requests)
    answers = await asyncio.gather(*(revoke(server) for _ in range(3)))
    assert {each.status for each in answers} == {404}
    assert lists(server.world, before) == []  # before: three lists of all orders of the account


async def test_with_several_replicas_it_is_looked_for_by_its_serial_number(server: Server, other: Server) -> None:
    other.world.services.state.order_index.mark_complete()
    before = len(server.world.api.requests)
    answers = await asyncio.gather(*(revoke(other) for _ in range(3)))
    assert {each.status for each in answers} == {404}
    asked = {(each.fields, each.limit) for each in lists(server.world, before)}
    assert asked == {(f"status.serialNumber={UNKNOWN.serial_number:x}", 50)}  # before: no field, 500 at a time
    assert len(other.world.services.state.orders) == 0  # before: all that the account has


async def test_a_certificate_that_another_replica_has_just_issued_is_found(server: Server, other: Server) -> None:
    other.world.services.state.order_index.mark_complete()
    certificate = await server.certificate(await server.finalize(await server.ready()))
    assert (await revoke(other, certificate.public_bytes(Encoding.DER))).status == 200


async def test_the_proofs_of_an_account_are_known_and_only_new_orders_are_read(server: Server, other: Server) -> None:
    index = other.world.services.state.order_index
    der = (await server.certificate(await server.finalize(await server.ready()))).public_bytes(Encoding.DER)
    stranger = replace(server, key=ClientKey(), kid=None)
    await stranger.register()
    for number in range(MANY):
        await stranger.order(f"{number}.example.com")
    for namespace, name in server.world.stored_orders():
        await other.world.services.state.orders.read_live(namespace, name)
    index.mark_complete()
    there = replace(other, key=stranger.key, kid=stranger.kid)
    before = len(server.world.api.requests)
    assert (await revoke(there, der)).status == 403
    proven = await stranger.ready()
    assert (await revoke(there, der)).status == 200
    name = proven.location.rpartition("/")[2]
    seen = [each for each in server.world.api.requests[before:] if each.plural == "acmeorders"]
    asked = [(each.verb, each.name) for each in seen if each.verb in {"get", "list"}]
    assert asked.count(("list", "")) == 2
    assert {each for verb, each in asked if verb == "get"} == {name}
    assert all(each.fields.endswith("status.state!=invalid") for each in seen if each.verb == "list")


async def test_the_list_of_orders_is_made_of_names_alone(server: Server) -> None:
    server.world.services.state.orders.clear()
    before = len(server.world.api.requests)
    listed = await server.post(f"{server.kid}/orders")
    assert len(listed.json["orders"]) == MANY
    assert [(each.fields, each.limit) for each in lists(server.world, before)] == [("status.state!=invalid", 100)]
    assert len(server.world.services.state.orders) == 0  # before: 100 orders of up to 300 kB pushed others out
