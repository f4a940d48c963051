from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import pytest
from msgspec.structs import replace

from acme_server.problems import Refused
from acme_server.state.garbage_collector import GarbageCollector, Pacing, UnfinishedOrders
from kms.cluster.errors import ClusterError
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS, ORDERS
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder
from tests.support import pki
from tests.support.acmeorders import DIGEST, order
from tests.support.domain import NAMESPACE, Key, World, running_world, wrong
from tests.support.eventually import in_background, until

pytestmark = pytest.mark.requirement("SEC61")
DAY = timedelta(days=1)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as world:
        yield world


@pytest.fixture
async def account(world: World) -> ACMEAccount:
    return await world.account()


def garbage_collector(
    world: World, *, pauses: list[float] | None = None, most: int = 100, known: asyncio.Event | None = None
) -> GarbageCollector:
    if known is None:
        known = asyncio.Event()
        known.set()

    async def sleep(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)

    return GarbageCollector(
        world.cluster,
        profiles=world.profiles,
        namespaces=(),
        known=known,
        clock=world.clock,
        metrics=world.metrics,
        pace=Pacing(every=0.01, rate=50, most=most, pause=0.01),
        sleep=sleep,
    )


def there(world: World, order: ACMEOrder) -> bool:
    return world.api.read(ORDERS, NAMESPACE, order.metadata.name) is not None


async def test_orders_go_when_they_are_due_and_not_before(world: World, account: ACMEAccount) -> None:
    world.validator.failures["failing.example.com"] = wrong()
    failed = await world.proven(account, "failing.example.com")
    abandoned = await world.order(account)
    ready = await world.proven(account, "certified.example.com")
    valid = await world.services.orders.finalize(world.profile, account, ready, pki.csr("certified.example.com"))
    for days, left in ((0.9, [failed, abandoned, valid]), (1.1, [abandoned, valid]), (2.1, [valid]), (30, [valid])):
        world.clock.ahead = timedelta(days=days)
        await garbage_collector(world).sweep()
        assert [each for each in (failed, abandoned, valid) if there(world, each)] == left
    world.clock.ahead = timedelta(days=31.1)
    assert await garbage_collector(world).sweep() == {"acmeorders": 1}
    assert not there(world, valid)


@pytest.mark.requirement("SEC56", "SEC61")
async def test_what_has_changed_since_it_was_judged_stays(world: World, account: ACMEAccount) -> None:
    abandoned = await world.order(account)
    world.clock.ahead = 3 * DAY
    one = garbage_collector(world)
    due, _ = await one._due_orders()
    await world.services.orders.deactivate_authorization(abandoned, 0)
    assert await one._delete(due) == 0
    assert there(world, abandoned)


@pytest.mark.requirement("SEC61")
async def test_one_object_that_cannot_be_removed_does_not_keep_the_others(world: World, account: ACMEAccount) -> None:
    for _ in range(3):
        await world.order(account)
    world.clock.ahead = 3 * DAY
    world.api.fail_next("delete", ORDERS.plural, 403)
    pauses: list[float] = []
    assert await garbage_collector(world, pauses=pauses).sweep() == {"acmeorders": 2}
    assert world.metrics.sweeps == ["failed", "removed", "removed"]
    assert pauses == [1 / 50] * 3, "deletions are spread"


@pytest.mark.requirement("SEC61")
async def test_a_sweep_has_an_end(world: World, account: ACMEAccount) -> None:
    for _ in range(5):
        await world.order(account)
    world.clock.ahead = 3 * DAY
    assert await garbage_collector(world, most=3).sweep() == {"acmeorders": 3}
    assert await garbage_collector(world, most=3).sweep() == {"acmeorders": 2}


async def test_an_api_server_that_is_away_breaks_a_sweep_off_and_the_next_one_goes_on(
    world: World, account: ACMEAccount
) -> None:
    abandoned = await world.order(account)
    world.clock.ahead = 3 * DAY
    world.api.fail_next("list", ORDERS.plural, 503, times=9)
    with pytest.raises(ClusterError):
        await garbage_collector(world).sweep()
    task = asyncio.create_task(garbage_collector(world).run())
    await until(lambda: not there(world, abandoned))
    task.cancel()


async def test_nothing_is_listed_before_the_server_knows_all_orders(world: World, account: ACMEAccount) -> None:
    abandoned = await world.order(account)
    world.clock.ahead = 3 * DAY
    known, before = asyncio.Event(), len(world.api.requests)
    async with in_background(garbage_collector(world, known=known).run()):
        for _ in range(5):  # time enough for a list
            assert await world.services.order_store.fresh(*key_of(abandoned)) is not None
        assert {each.verb for each in world.api.requests[before:]} == {"get"}
        known.set()
        await until(lambda: not there(world, abandoned))


@pytest.mark.requirement("SEC61")
async def test_accounts_go_only_where_the_profile_says_so_and_only_without_orders(world: World) -> None:
    busy, idle = await world.account(), await world.account(Key(thumbprint="x" * 43))
    order = await world.proven(busy, "www.example.com")
    await world.services.orders.finalize(world.profile, busy, order, pki.csr("www.example.com"))
    world.clock.ahead = 10 * DAY
    await garbage_collector(world).sweep()
    assert len(world.profiles.values()) == 1
    assert world.api.read(ACCOUNTS, NAMESPACE, idle.metadata.name) is not None
    world.configure(account_retention="168h")
    assert await garbage_collector(world).sweep() == {"acmeorders": 0, "acmeaccounts": 1}
    assert world.api.read(ACCOUNTS, NAMESPACE, idle.metadata.name) is None
    assert world.api.read(ACCOUNTS, NAMESPACE, busy.metadata.name) is not None


@pytest.mark.requirement("SEC34")
async def test_an_order_that_nobody_looks_at_does_not_stay_in_processing(world: World, account: ACMEAccount) -> None:
    ready = await world.proven(account)
    world.remove_authority_key()
    world.clock.ahead = timedelta(hours=1)  # ready for so long that the request is written down first
    processing = await world.services.orders.finalize(world.profile, account, ready, pki.csr("www.example.com"))
    assert processing.status.state == "processing"
    unfinished_orders = UnfinishedOrders(patience=0.1, every=0.02)
    unfinished_orders.seen(world.stored(processing), False)
    task = asyncio.create_task(unfinished_orders.run(world.services.orders.finish))
    await asyncio.sleep(0.2)
    assert world.stored(processing).status.state == "processing", "the issuer is not ready yet"
    world.install_authority()
    await until(lambda: world.stored(processing).status.state == "valid")
    task.cancel()


@pytest.mark.requirement("SEC34")
async def test_only_what_stays_in_processing_is_looked_at() -> None:
    asked: list[str] = []

    async def finish(key: tuple[str, str]) -> None:
        asked.append(key[1])

    unfinished_orders = UnfinishedOrders(patience=0.05, every=0.01)
    processing = order()
    processing = replace(processing, status=replace(processing.status, state="processing", csr_digest=DIGEST))
    named = partial(replace, processing)
    for name in ("left", "finished", "gone"):
        unfinished_orders.seen(named(metadata=replace(processing.metadata, name=name)), False)
    done = replace(processing, metadata=replace(processing.metadata, name="finished"))
    unfinished_orders.seen(replace(done, status=replace(done.status, state="invalid")), False)
    unfinished_orders.seen(named(metadata=replace(processing.metadata, name="gone")), True)
    task = asyncio.create_task(unfinished_orders.run(finish))
    await until(lambda: "left" in asked)
    assert set(asked) == {"left"}
    task.cancel()


@pytest.mark.requirement("SEC34")
async def test_an_order_that_cannot_be_finished_now_is_tried_again(world: World, account: ACMEAccount) -> None:
    one = await world.order(account)
    world.api.fail_next("get", ORDERS.plural, 503, times=9)
    await world.services.orders.finish((NAMESPACE, one.metadata.name))
    await world.services.orders.finish((NAMESPACE, "gone"))


@pytest.mark.requirement("SEC38")
async def test_a_full_profile_takes_no_more_orders_and_accounts(world: World, account: ACMEAccount) -> None:
    world.configure(maximum_orders=1, maximum_accounts=1)
    await world.order(account)
    with pytest.raises(Refused, match=r"spec\.enrollment\.acme\.maximumOrders"):
        await world.order(account)
    with pytest.raises(Refused, match=r"spec\.enrollment\.acme\.maximumAccounts"):
        await world.account(Key(thumbprint="x" * 43))
    assert await world.services.accounts.find(world.profile, Key().thumbprint) == account
