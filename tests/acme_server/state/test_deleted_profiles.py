"""Accounts and orders whose profile was deleted are kept for the deletion retention (SEC80)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.state.deleted_profiles import PROFILE_DELETED_AT
from kms.resources.accounts import ACMEAccount
from kms.resources.kept import format_time
from kms.resources.kinds import ACCOUNTS, ORDERS, PROFILES, Kind
from kms.resources.meta import OwnerReference, key_of
from kms.resources.orders import ACMEOrder
from tests.support import pki
from tests.support.domain import NAMESPACE, PROFILE, Key, World
from tests.support.garbage_collection import garbage_collector

pytestmark = pytest.mark.requirement("SEC80")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


async def collect(world: World) -> None:
    await garbage_collector(world).collect()


def delete_profile(world: World) -> None:
    world.profiles.remove(NAMESPACE, PROFILE)


def left(world: World) -> dict[str, int]:
    """How many accounts and orders there are."""
    plurals = [each.plural for each in world.api.store.by_key]
    return {each: plurals.count(each) for each in ("acmeaccounts", "acmeorders")}


def marks(world: World) -> list[str]:
    """Since when a profile has been gone, as written on objects."""
    bodies = (body["metadata"].get("annotations", {}) for body in world.api.store.by_key.values())
    return [each[PROFILE_DELETED_AT] for each in bodies if PROFILE_DELETED_AT in each]


async def issued(world: World, account: ACMEAccount) -> ACMEOrder:
    return await world.finalized(account, await world.proven(account), pki.csr("www.example.com"))


async def test_accounts_and_orders_are_kept_for_the_retention_and_go_then(world: World, account: ACMEAccount) -> None:
    await issued(world, account)
    delete_profile(world)
    for days in (0.0, 3.0, 6.9):
        world.clock.ahead = timedelta(days=days)
        await collect(world)
        assert left(world) == {"acmeaccounts": 1, "acmeorders": 1}
    assert len(marks(world)) == 1, "one write, which a collector that begins anew reads"
    world.clock.ahead = timedelta(days=7.1)
    await collect(world)
    assert left(world) == {"acmeaccounts": 0, "acmeorders": 0}


async def test_a_profile_of_the_same_name_has_the_same_accounts_and_orders(world: World, account: ACMEAccount) -> None:
    order = await issued(world, account)
    delete_profile(world)
    await collect(world)
    world.clock.ahead = 6 * DAY
    world.configure()
    restarted = world.another()
    assert await restarted.services.accounts.find(restarted.profile, account.thumbprint) == account
    again = await restarted.services.orders.get(restarted.caller(account), order.metadata.name)
    assert again.status.serial_number == order.status.serial_number
    await collect(world)
    assert marks(world) == []
    world.clock.ahead = 8 * DAY
    delete_profile(world)
    await collect(world)
    assert left(world) == {"acmeaccounts": 1, "acmeorders": 1}, "the time begins anew"


async def test_a_profile_that_comes_and_goes_between_two_runs_is_kept_from_its_last_deletion(
    world: World, account: ACMEAccount
) -> None:
    collector = garbage_collector(world)
    await issued(world, account)
    delete_profile(world)
    await collector.collect()
    world.clock.ahead = timedelta(days=6.999)
    world.configure()
    before = format_time(world.clock())
    delete_profile(world)
    after = format_time(world.clock())
    world.clock.ahead = timedelta(days=7.001)
    for _ in range(2):
        await collector.collect()
        assert left(world) == {"acmeaccounts": 1, "acmeorders": 1}
    (mark,) = marks(world)
    assert before <= mark <= after
    world.clock.ahead = timedelta(days=14)
    await collector.collect()
    assert left(world) == {"acmeaccounts": 0, "acmeorders": 0}


async def test_a_profile_that_the_server_cannot_read_is_not_gone(world: World, account: ACMEAccount) -> None:
    profile = world.profiles.get(NAMESPACE, PROFILE)
    assert profile is not None
    world.api.put(PROFILES, profile)
    delete_profile(world)
    for days in (0, 8):
        world.clock.ahead = timedelta(days=days)
        await collect(world)
    assert (left(world)["acmeaccounts"], marks(world)) == (1, [])
    world.api.remove(PROFILES, NAMESPACE, PROFILE)
    world.profiles.silence = 5.0
    await collect(world)
    assert marks(world) == [], "without its watch the server knows nothing"
    world.profiles.silence = 0.0
    world.api.fail_next("get", PROFILES.plural, 403)
    await collect(world)
    assert marks(world) == []
    await collect(world)
    assert len(marks(world)) == 1


async def test_a_revoked_certificate_stays_in_the_inventory_until_its_end(world: World, account: ACMEAccount) -> None:
    order = world.stored(await issued(world, account))
    world.api.put(ORDERS, transitions.revoked(order, "superseded", now=world.clock()))
    delete_profile(world)
    await collect(world)
    world.clock.ahead = 8 * DAY
    await collect(world)
    assert left(world) == {"acmeaccounts": 0, "acmeorders": 1}
    world.clock.ahead = 32 * DAY
    await collect(world)
    assert left(world) == {"acmeaccounts": 0, "acmeorders": 0}


def own(world: World, kind: Kind[Any], resource: Any) -> None:
    """Give an object the owner reference of earlier releases."""
    ours = OwnerReference(api_version=PROFILES.api_version, kind=PROFILES.kind, name=PROFILE, uid="profile-uid")
    others = OwnerReference(api_version="v1", kind="ConfigMap", name="other", uid="other-uid")
    body = world.api.read(kind, *key_of(resource))
    assert body is not None
    world.api.put(kind, replace(body, metadata=replace(body.metadata, owner_references=(ours, others))))


async def test_objects_of_earlier_releases_lose_the_owner_with_which_the_cluster_would_delete_them(
    world: World, account: ACMEAccount
) -> None:
    orders = [await world.order(account) for _ in range(4)]
    own(world, ACCOUNTS, account)
    for each in orders:
        own(world, ORDERS, each)
    world.api.fail_next("patch", ORDERS.plural, 403)
    before = world.stored(orders[0])
    await garbage_collector(world, most=2).collect()
    await garbage_collector(world, most=2).collect()
    bodies = [each for key, each in world.api.store.by_key.items() if key.plural.startswith("acme")]
    assert len(bodies) == 5
    for body in bodies:
        assert [owner["name"] for owner in body["metadata"]["ownerReferences"]] == ["other"]
    after = world.stored(orders[0])
    assert (after.spec, after.status) == (before.spec, before.status)


async def test_an_alias_goes_after_its_account(world: World, account: ACMEAccount) -> None:
    state = world.services.state
    changed = await world.services.accounts.change_key(
        world.caller(account), Key(thumbprint="second"), old=account.thumbprint
    )
    state.account_index.mark_complete()
    await collect(world)
    assert left(world)["acmeaccounts"] == 2
    world.api.remove(ACCOUNTS, *key_of(account))
    state.accounts.apply_event(changed, deleted=True)
    await collect(world)
    assert left(world)["acmeaccounts"] == 0
