from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from kms.cluster.leader_election import LeaderElection, LeaseTiming, claim, release
from kms.resources.core import Lease, LeaseSpec
from kms.resources.kinds import LEASES
from kms.resources.meta import ObjectMeta
from tests.support.apiserver import FakeApiServer
from tests.support.eventually import until

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
QUICK = LeaseTiming(duration=1.6, renew_within=1.0, every=0.05)
NAMESPACE, NAME = "kms-acme", "kms-acme-operator"


class Term:
    """Work that lasts until it is told to end, and counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.working = False
        self.end = asyncio.Event()

    async def __call__(self) -> None:
        self.begun += 1
        self.working = True
        try:
            await self.end.wait()
        finally:
            self.working = False


@asynccontextmanager
async def candidate(api: FakeApiServer, identity: str, work: Term) -> AsyncIterator[asyncio.Task[None]]:
    election = LeaderElection(await api.cluster(), namespace=NAMESPACE, name=NAME, identity=identity, timing=QUICK)
    task = asyncio.create_task(election.run(work))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def held_by(api: FakeApiServer) -> str | None:
    lease = api.read(LEASES, NAMESPACE, NAME)
    return lease.spec.holder_identity if lease is not None else None


def test_a_lease_is_acquired_once_and_then_renewed() -> None:
    first = claim(Lease(metadata=ObjectMeta(name=NAME)), identity="a", timing=LeaseTiming(), now=NOW)
    assert first.spec == LeaseSpec(
        holder_identity="a",
        lease_duration_seconds=15,
        acquire_time="2026-11-25T12:00:00.000000Z",
        renew_time="2026-11-25T12:00:00.000000Z",
        lease_transitions=0,
    )
    stored = replace(first, metadata=ObjectMeta(name=NAME, resource_version="1"))
    renewed = claim(stored, identity="a", timing=LeaseTiming(), now=NOW.replace(second=2))
    assert renewed.spec == replace(first.spec, renew_time="2026-11-25T12:00:02.000000Z")
    won = claim(release(stored), identity="b", timing=LeaseTiming(), now=NOW)
    assert (won.spec.holder_identity, won.spec.lease_transitions) == ("b", 1)


async def test_of_two_candidates_one_works_and_the_other_takes_over_when_it_lets_go(api: FakeApiServer) -> None:
    one, other = Term(), Term()
    async with candidate(api, "one", one) as first:
        await until(lambda: one.working)
        async with candidate(api, "other", other):
            await asyncio.sleep(1.2 * QUICK.duration)
            assert (one.working, other.begun) == (True, 0), "who renews keeps the lease for as long as it likes"
            first.cancel()
            await until(lambda: other.working)
            assert not one.working
            assert held_by(api) == "other"


async def test_a_holder_that_died_is_followed_after_the_duration(api: FakeApiServer) -> None:
    dead = claim(Lease(metadata=ObjectMeta(namespace=NAMESPACE, name=NAME)), identity="dead", timing=QUICK, now=NOW)
    api.put(LEASES, dead)
    heir = Term()
    async with candidate(api, "heir", heir):
        await asyncio.sleep(QUICK.duration / 2)
        assert not heir.working, "the times in the lease are those of another clock, and mean nothing"
        await until(lambda: heir.working)


async def test_who_comes_back_under_the_same_name_does_not_wait_for_himself(api: FakeApiServer) -> None:
    mine = claim(
        Lease(metadata=ObjectMeta(namespace=NAMESPACE, name=NAME)), identity="me", timing=LeaseTiming(), now=NOW
    )
    api.put(LEASES, mine)
    work = Term()
    async with candidate(api, "me", work):
        await until(lambda: work.working, seconds=QUICK.duration / 2)


async def test_a_holder_that_cannot_renew_stops_before_anybody_else_may_begin(api: FakeApiServer) -> None:
    work = Term()
    async with candidate(api, "one", work):
        await until(lambda: work.working)
        api.fail_next("update", LEASES.plural, 503, times=1000)
        began = asyncio.get_running_loop().time()
        await until(lambda: not work.working)
        assert asyncio.get_running_loop().time() - began < QUICK.duration


async def test_a_lease_that_somebody_else_has_taken_is_lost_at_once(api: FakeApiServer) -> None:
    work = Term()
    async with candidate(api, "one", work):
        await until(lambda: work.working)
        lease = api.read(LEASES, NAMESPACE, NAME)
        assert lease is not None
        api.put(LEASES, replace(lease, spec=replace(lease.spec, holder_identity="thief")))
        await until(lambda: not work.working)
        assert held_by(api) == "thief", "and it is not released on the way out"


async def test_somebody_elses_change_to_the_lease_does_not_end_the_term(api: FakeApiServer) -> None:
    work = Term()
    async with candidate(api, "one", work):
        await until(lambda: work.working)
        lease = api.read(LEASES, NAMESPACE, NAME)
        assert lease is not None
        api.put(LEASES, replace(lease, metadata=replace(lease.metadata, labels={"a": "b"})))
        await asyncio.sleep(3 * QUICK.every)
        assert work.working
        assert work.begun == 1


async def test_an_api_server_that_is_away_is_waited_for(api: FakeApiServer) -> None:
    api.fail_next("get", LEASES.plural, 503, times=3)
    work = Term()
    async with candidate(api, "one", work):
        await until(lambda: work.working)


async def test_what_the_work_raises_is_raised_and_the_lease_is_free(api: FakeApiServer) -> None:
    async def broken() -> None:
        raise RuntimeError("broken")

    election = LeaderElection(await api.cluster(), namespace=NAMESPACE, name=NAME, identity="one", timing=QUICK)
    with pytest.raises(RuntimeError, match="broken"):
        await election.run(broken)
    assert held_by(api) == ""
    assert not election.leading
