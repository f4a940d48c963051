"""Users who may create ACMEOrders take the names of the orders that replace a certificate: renewals go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from acme_server.orders.replacement import successor_name
from e2e.load.keys import certificate_id
from kms.pki.certificate import issuer_id
from kms.resources.kinds import ORDERS
from kms.resources.meta import LocalRef, ObjectMeta
from tests.support.domain import NAMESPACE
from tests.support.server import Server, running_server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        running.world.services.state.order_index.mark_complete()
        await running.register()
        yield running


async def occupied(server: Server, count: int, **spec: Any) -> str:
    """A certificate of which somebody has taken the first names of successors; returns its identifier."""
    leaf = await server.certificate(await server.finalize(await server.ready()))
    certificates = server.world.services.state.certificates
    predecessor = certificates.certificate(NAMESPACE, issuer_id(leaf), f"{leaf.serial_number:x}")
    assert predecessor is not None
    wanted = certificate_id(leaf)
    stored: Any = server.world.api.read(ORDERS, *predecessor.order)
    for attempt in range(count):
        metadata = ObjectMeta(
            namespace=NAMESPACE,
            name=successor_name(predecessor, attempt),
            uid=f"stranger-{attempt}",
            creation_timestamp=server.world.clock(),
        )
        fields = {"replaces": wanted, "expires": server.world.clock() + timedelta(days=900), **spec}
        server.world.api.put(ORDERS, type(stored)(metadata=metadata, spec=replace(stored.spec, **fields)))
    return wanted


@pytest.mark.requirement("SEC22")
@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("spec", [{"account_ref": LocalRef(name="other")}, {"replaces": None}])
async def test_a_stranger_does_not_keep_an_account_from_renewing(
    server: Server, count: int, spec: dict[str, Any]
) -> None:
    wanted = await occupied(server, count, **spec)
    answer = await server.order(replaces=wanted)
    assert (answer.status, answer.json.get("replaces")) == (201, wanted)


async def test_a_copy_of_an_order_of_the_account_counts_no_longer_than_an_order_lasts(server: Server) -> None:
    wanted = await occupied(server, 1)
    assert (await server.order(replaces=wanted)).problem["type"] == "alreadyReplaced"
    server.world.clock.ahead += server.world.profile.order_lifetime + timedelta(hours=1)
    assert (await server.order(replaces=wanted)).status == 201


async def test_an_order_of_the_account_still_replaces_a_certificate_alone(server: Server) -> None:
    wanted = await occupied(server, 2, account_ref=LocalRef(name="other"))
    assert (await server.order(replaces=wanted)).status == 201
    assert (await server.order(replaces=wanted)).problem["type"] == "alreadyReplaced"
