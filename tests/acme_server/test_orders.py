from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support import pki
from tests.support.domain import World, running_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as world:
        yield world


@pytest.mark.parametrize("count", [1, 10])
async def test_an_issuance_costs_three_writes_and_no_reads(world: World, count: int) -> None:
    names = [f"host-{number}.example.com" for number in range(count)]
    account = await world.account()
    before = len(world.api.requests)
    # Without the watch nothing is known for certain about account keys: one read, which the test of known keys covers.
    world.services.known_keys._complete = True
    order = await world.proven(account, *names)
    assert order.status.state == "ready"
    order = await world.services.orders.get(world.profile, account, order.metadata.name)
    order = await world.services.orders.finalize(world.profile, account, order, pki.csr(*names))
    assert order.status.state == "valid"
    assert world.calls(before) == ["create acmeorders", "update acmeorders", "update acmeorders"]
