from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.problems import Refused
from acme_server.state.revocation_records import certificate_record
from kms.cluster.errors import ClusterError
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS, ORDERS, REVOCATION_RECORDS
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder
from tests.support import pki
from tests.support.acmeorders import NOW
from tests.support.domain import NAMESPACE, RELEASE, Key, World, counted, wrong
from tests.support.eventually import in_background, until
from tests.support.garbage_collection import garbage_collector

pytestmark = pytest.mark.requirement("SEC61")
DAY = timedelta(days=1)


def there(world: World, order: ACMEOrder) -> bool:
    return world.api.read(ORDERS, NAMESPACE, order.metadata.name) is not None


async def test_orders_go_when_they_are_due_and_not_before(world: World, account: ACMEAccount) -> None:
    world.validator.failures["failing.example.com"] = wrong()
    failed = await world.proven(account, "failing.example.com")
    abandoned = await world.order(account)
    ready = await world.proven(account, "certified.example.com")
    valid = await world.finalized(account, ready, pki.csr("certified.example.com"))
    for days, left in ((0.9, [failed, abandoned, valid]), (1.1, [abandoned, valid]), (2.1, [valid]), (30, [valid])):
        world.clock.ahead = timedelta(days=days)
        await garbage_collector(world).collect()
        assert [each for each in (failed, abandoned, valid) if there(world, each)] == left
    world.clock.ahead = timedelta(days=31.1)
    assert (await garbage_collector(world).collect())["acmeorders"] == 1
    assert not there(world, valid)


@pytest.mark.requirement("SEC56", "SEC61")
async def test_what_has_changed_since_it_was_judged_stays(world: World, account: ACMEAccount) -> None:
    first, second = [await world.order(account) for _ in range(2)]
    world.clock.ahead = 3 * DAY

    async def deactivate_the_other(_: float) -> None:
        """After the first deletion, while the second order is already due."""
        for order in (first, second):
            if there(world, order):
                await world.services.orders.deactivate_authorization(order, 0)

    assert (await garbage_collector(world, sleep=deactivate_the_other).collect())["acmeorders"] == 1
    assert there(world, first) is not there(world, second)


async def test_what_others_have_deleted_is_not_counted(world: World, account: ACMEAccount) -> None:
    first, second = [await world.order(account) for _ in range(2)]
    world.clock.ahead = 3 * DAY

    async def delete_the_other(_: float) -> None:
        for order in filter(lambda each: there(world, each), (first, second)):
            world.api.remove(ORDERS, NAMESPACE, order.metadata.name)

    assert (await garbage_collector(world, sleep=delete_the_other).collect())["acmeorders"] == 1
    assert counted(world.metrics, "swept_objects") == {(ORDERS.plural, "removed"): 1}


@pytest.mark.requirement("SEC61")
async def test_one_object_that_cannot_be_removed_does_not_keep_the_others(world: World, account: ACMEAccount) -> None:
    for _ in range(3):
        await world.order(account)
    world.clock.ahead = 3 * DAY
    world.api.fail_next("delete", ORDERS.plural, 403)
    pauses: list[float] = []

    async def record(seconds: float) -> None:
        pauses.append(seconds)

    assert (await garbage_collector(world, sleep=record).collect())["acmeorders"] == 2
    assert counted(world.metrics, "swept_objects") == {(ORDERS.plural, "failed"): 1, (ORDERS.plural, "removed"): 2}
    assert pauses == [1 / 50] * 3, "deletions are spread"


@pytest.mark.requirement("SEC61")
async def test_a_run_has_an_end(world: World, account: ACMEAccount) -> None:
    for _ in range(5):
        await world.order(account)
    world.clock.ahead = 3 * DAY
    assert (await garbage_collector(world, most=3).collect())["acmeorders"] == 3
    assert (await garbage_collector(world, most=3).collect())["acmeorders"] == 2


async def test_an_api_server_that_is_away_interrupts_a_run_and_the_next_one_goes_on(
    world: World, account: ACMEAccount
) -> None:
    abandoned = await world.order(account)
    world.clock.ahead = 3 * DAY
    world.api.fail_next("list", ORDERS.plural, 503, times=9)
    with pytest.raises(ClusterError):
        await garbage_collector(world).collect()
    task = asyncio.create_task(garbage_collector(world).run())
    await until(lambda: not there(world, abandoned))
    task.cancel()


async def test_nothing_is_listed_before_the_server_knows_all_orders(world: World, account: ACMEAccount) -> None:
    abandoned = await world.order(account)
    world.clock.ahead = 3 * DAY
    orders_listed, before = asyncio.Event(), len(world.api.requests)
    async with in_background(garbage_collector(world, orders_listed=orders_listed).run()):
        for _ in range(5):  # time enough for a list
            assert await world.services.state.orders.read_live(*key_of(abandoned)) is not None
        assert {each.verb for each in world.api.requests[before:]} == {"get"}
        orders_listed.set()
        await until(lambda: not there(world, abandoned))


@pytest.mark.requirement("SEC76")
@pytest.mark.parametrize(("binding", "kept"), [("Required", True), ("Optional", False), ("Disabled", False)])
async def test_idle_accounts_that_cost_nothing_go_after_30_days(world: World, binding: str, *, kept: bool) -> None:
    world.configure(external_account_binding="Disabled")
    idle = await world.account(Key(thumbprint="x" * 43))
    world.configure(external_account_binding=binding)
    world.clock.ahead = 29 * DAY
    await garbage_collector(world).collect()
    assert world.api.read(ACCOUNTS, NAMESPACE, idle.metadata.name) is not None
    world.clock.ahead = 31 * DAY
    await garbage_collector(world).collect()
    assert (world.api.read(ACCOUNTS, NAMESPACE, idle.metadata.name) is not None) is kept


@pytest.mark.requirement("SEC61")
async def test_accounts_go_only_where_the_profile_says_so_and_only_without_orders(world: World) -> None:
    busy, idle = await world.account(), await world.account(Key(thumbprint="x" * 43))
    world.configure(account_retention="876000h")
    order = await world.proven(busy, "www.example.com")
    await world.finalized(busy, order)
    world.clock.ahead = 10 * DAY
    await garbage_collector(world).collect()
    assert len(world.profiles.values()) == 1
    assert world.api.read(ACCOUNTS, NAMESPACE, idle.metadata.name) is not None
    world.configure(account_retention="168h")
    assert await garbage_collector(world).collect() == {"acmeorders": 0, "acmeaccounts": 1}
    assert world.api.read(ACCOUNTS, NAMESPACE, idle.metadata.name) is None
    assert world.api.read(ACCOUNTS, NAMESPACE, busy.metadata.name) is not None


@pytest.mark.requirement("SEC38")
async def test_a_full_profile_takes_no_more_orders_and_accounts(world: World, account: ACMEAccount) -> None:
    world.configure(maximum_orders=1, maximum_accounts=1)
    await world.order(account)
    with pytest.raises(Refused, match=r"spec\.enrollment\.acme\.maximumOrders"):
        await world.order(account)
    with pytest.raises(Refused, match=r"spec\.enrollment\.acme\.maximumAccounts"):
        await world.account(Key(thumbprint="x" * 43))
    assert await world.services.accounts.find(world.profile, Key().thumbprint) == account


@pytest.mark.requirement("SEC61", "SEC79")
async def test_records_of_revocations_go_when_the_certificate_has_ended_and_not_before(
    world: World, account: ACMEAccount
) -> None:
    valid = await world.finalized(account, await world.proven(account), pki.csr("www.example.com"))
    assert valid.status.not_after is not None
    for reason, days in (("superseded", 1), ("keyCompromise", 365)):
        order = transitions.revoked(replace(valid, status=replace(valid.status, revocation=None)), reason, now=NOW)
        record = certificate_record(order, RELEASE)
        assert record is not None
        world.api.put(REVOCATION_RECORDS, record)
        world.clock.ahead += valid.status.not_after + days * DAY - world.clock()
        assert "revocationrecords" not in await garbage_collector(world).collect()
        world.clock.ahead += timedelta(seconds=2)
        assert (await garbage_collector(world).collect())["revocationrecords"] == 1
        assert world.api.read(REVOCATION_RECORDS, RELEASE, record.metadata.name) is None
