from __future__ import annotations

import asyncio

import pytest

from acme_server.orders.cancellation import Cancellation
from acme_server.payloads import AccountUpdate
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ORDERS
from kms.resources.meta import condition
from tests.support.accounts import account as some_account
from tests.support.domain import Key, World


async def deactivate(world: World, account: ACMEAccount, cancellation: Cancellation | None = None) -> None:
    """Deactivate the account, and let the cancellation finish."""
    account = await world.services.accounts.update(world.caller(account), AccountUpdate(status="deactivated"))
    if cancellation is None:
        cancellation = world.services.cancellation
    else:
        cancellation.enqueue(account)
    work = asyncio.create_task(cancellation.run())
    async with asyncio.timeout(10):
        await cancellation.idle()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


def impatient(world: World) -> Cancellation:
    return Cancellation(orders=world.services.state.orders, clock=world.clock, pause=0.01)


@pytest.mark.requirement("S104", "S105")
async def test_open_orders_of_a_deactivated_account_end_and_all_others_stay(world: World, account: ACMEAccount) -> None:
    pending, ready = await world.order(account), await world.proven(account)
    issued = await world.proven(account)
    await world.finalized(account, issued)
    others = await world.order(await world.account(Key(thumbprint="other")))
    await deactivate(world, account)
    states = [world.stored(each).status.state for each in (pending, ready, issued, others)]
    assert states == ["invalid", "invalid", "valid", "pending"]
    ended = world.stored(ready)
    assert ended.status.error is not None
    assert (ended.status.error.type, ended.status.error.detail) == ("unauthorized", "The account was deactivated.")
    found = condition(ended.status.conditions, "Ready")
    assert found is not None
    assert found.reason == "AccountDeactivated"


async def test_an_account_with_many_orders_is_gone_through_page_by_page(world: World, account: ACMEAccount) -> None:
    for number in range(130):
        await world.order(account, f"{number}.example.com")
    before = len(world.api.requests)
    await deactivate(world, account)
    calls = world.calls(before)
    assert calls.count("list acmeorders") == 130 // 20 + 2  # and one that finds none
    assert calls.count("update acmeorders") == 130


async def test_while_the_api_server_is_away_it_is_tried_again(world: World, account: ACMEAccount) -> None:
    order = await world.order(account)
    world.api.fail_next("list", ORDERS.plural, 503)
    await deactivate(world, account, impatient(world))
    assert world.stored(order).status.state == "invalid"


async def test_an_api_server_that_stays_away_leaves_the_orders_to_time(world: World, account: ACMEAccount) -> None:
    order = await world.order(account)
    world.api.fail_next("list", ORDERS.plural, 503, times=100)
    await deactivate(world, account, impatient(world))
    assert world.stored(order).status.state == "pending"


async def test_an_order_that_goes_meanwhile_is_none_of_its_business(world: World, account: ACMEAccount) -> None:
    order, other = await world.order(account), await world.order(account)
    world.api.fail_next("update", ORDERS.plural, 404)
    await deactivate(world, account)
    # It still exists here, so it is listed again.
    assert [world.stored(each).status.state for each in (order, other)] == ["invalid", "invalid"]


async def test_the_queue_is_bounded(world: World, caplog: pytest.LogCaptureFixture) -> None:
    cancellation = Cancellation(orders=world.services.state.orders, clock=world.clock, queued=2)
    for name in ("a", "b", "c"):
        cancellation.enqueue(some_account(name))
    assert [vars(each)["account"] for each in caplog.records] == ["c"]
