"""Before a server has read accounts, orders and records once, what it does not know permits nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable

import pytest

from acme_server.problems import Unavailable
from tests.support import pki
from tests.support.domain import World, running_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as world:
        yield world


async def later(call: Awaitable[object]) -> None:
    """The call must be refused for the moment."""
    with pytest.raises(Unavailable) as caught:
        await call
    assert caught.value.retry_after


@pytest.mark.requirement("SEC25", "SEC38")
async def test_orders_wait_for_the_first_list_of_orders(world: World) -> None:
    """Limits count orders that were not listed yet, and a key may be that of a certificate that was compromised."""
    account = await world.account()
    order = await world.proven(account)
    compromised = pki.key(which="compromised")
    der = pki.csr(*(each.value for each in order.spec.identifiers), signed_with=compromised)
    world.services.state.order_index.loaded = False
    await later(world.finalized(account, order, der))
    await later(world.order(account, "more.example.com"))
    assert world.stored(order).status.certificate is None
    world.compromise(compromised.public_key())
    world.services.state.order_index.mark_complete()
    with pytest.raises(Exception, match="compromised"):
        await world.finalized(account, order, der)
    assert (await world.finalized(account, order)).status.state == "valid"


@pytest.mark.requirement("SEC38")
@pytest.mark.parametrize("index", ["account_index", "record_index"])
async def test_new_accounts_wait_for_the_first_lists_of_accounts_and_records(world: World, index: str) -> None:
    """A key may be blocked by a record, and accounts count for limits."""
    known = getattr(world.services.state, index)
    known.loaded = False
    await later(world.account())
    known.mark_complete()
    assert await world.account()
