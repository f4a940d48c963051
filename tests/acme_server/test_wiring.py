"""Two whole servers of the domain on one API server, with their watches running."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from acme_server.accounts.transitions import suspended
from acme_server.jose.jwk import thumbprint
from acme_server.payloads import AccountUpdate
from acme_server.problems import Refused
from kms.resources.kinds import ACCOUNTS
from kms.resources.meta import key_of
from tests.support import pki
from tests.support.domain import NAMESPACE, Key, World, running_world
from tests.support.eventually import until
from tests.support.watching import watching


@pytest.fixture
async def worlds() -> AsyncIterator[tuple[World, World]]:
    async with running_world() as one:
        one.sole_writer = False
        other = one.another()
        async with watching(one), watching(other):
            yield one, other


async def test_what_one_server_writes_the_other_one_sees_without_reading(worlds: tuple[World, World]) -> None:
    one, other = worlds
    account = await one.account()
    order = await one.order(account)
    # Once read, an object is kept current by the watch.
    assert await other.services.orders.get(other.caller(account), order.metadata.name) == order
    assert await other.services.accounts.by_id(other.profile, account.metadata.name) == account
    await one.respond(order, 0, "http-01")
    await one.services.orders.poll(order)
    await one.services.accounts.update(one.caller(account), AccountUpdate(status="deactivated"))

    def current() -> bool:
        seen = other.services.state.orders.get_cached(NAMESPACE, order.metadata.name)
        owner = other.services.state.accounts.get_cached(NAMESPACE, account.metadata.name)
        return bool(seen and owner and (seen.status.state, owner.status.state) == ("ready", "deactivated"))

    await until(current)


@pytest.mark.requirement("M115", "M157", "SEC26")
async def test_every_key_that_an_account_has_had_stays_known_also_to_a_server_that_begins(
    worlds: tuple[World, World],
) -> None:
    one, other = worlds
    account = await one.account()
    csr_key = Key(thumbprint=thumbprint(pki.key().public_key()) or "")
    account = await one.services.accounts.change_key(one.caller(account), csr_key, old=account.thumbprint)
    later = Key(thumbprint="later")
    account = await one.services.accounts.change_key(one.caller(account), later, old=csr_key.thumbprint)

    def current() -> bool:
        seen = other.services.state.accounts.get_cached(NAMESPACE, account.metadata.name)
        return seen is not None and seen.thumbprint == "later"

    await other.services.accounts.by_id(other.profile, account.metadata.name)
    await until(current)
    third = one.another(replica="server-2")
    async with watching(third):
        order = await third.proven(account)
        before = len(one.api.requests)
        with pytest.raises(Refused, match="ACME account"):
            await third.finalized(account, order)
        assert one.calls(before).count("get acmeaccounts") == 0  # no key was asked for


@pytest.mark.requirement("SEC38", "SEC62")
async def test_open_orders_of_other_servers_count(worlds: tuple[World, World]) -> None:
    one, other = worlds
    account = await one.account()
    await one.order(account)
    await until(lambda: other.services.state.open_orders.count(NAMESPACE, account.metadata.name) == 1)


async def test_after_a_gap_caches_are_filled_anew(worlds: tuple[World, World]) -> None:
    one, _ = worlds
    await one.account()
    assert len(one.services.state.accounts) == 1
    lists = one.calls().count("list acmeaccounts")
    one.api.fail_next("watch", "acmeaccounts", 410, times=2)  # the versions that the watches would go on from
    one.api.drop_watches()
    await until(lambda: len(one.services.state.accounts) == 0)
    await until(lambda: one.services.state.account_keys.complete and one.calls().count("list acmeaccounts") > lists)


@pytest.mark.requirement("SEC07", "SEC56", "SEC77")
async def test_without_a_watch_the_only_server_reads_an_account_before_it_grants_anything() -> None:
    async with running_world() as world, watching(world):
        account = await world.account()
        order = await world.proven(account)
        before = len(world.calls())
        await world.finalized(account, await world.proven(account, "other.example.com"))
        assert "get acmeaccounts" not in world.calls(before)
        world.api.fail_next("watch", ACCOUNTS.plural, 503, times=99)
        world.api.drop_watches()
        await until(world.services.state.account_feed.outage_seconds)
        world.api.put(ACCOUNTS, suspended(account, now=world.clock()))  # as kms-acme account suspend does
        with pytest.raises(Refused, match="suspended"):
            await world.finalized(account, order)
        assert world.stored(order).status.state == "ready"


@pytest.mark.requirement("SEC07", "SEC77")
async def test_a_suspension_reaches_the_cache_by_the_watch() -> None:
    async with running_world() as world, watching(world):
        account = await world.account()
        order = await world.proven(account)
        stopped = world.api.put(ACCOUNTS, suspended(account, now=world.clock()))
        await until(lambda: world.services.state.accounts.get_cached(*key_of(account)) == stopped, seconds=5)
        before = len(world.calls())
        with pytest.raises(Refused, match="suspended"):
            await world.finalized(account, order)
        assert world.calls(before) == []
