"""Slots that tenants share: by namespace and account, or by namespace, profile and account."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.fair_slots import FairSlots, Path
from tests.support.eventually import until

ONE, TWO, ANOTHER = ("team-a", "one"), ("team-a", "two"), ("team-b", "one")
PATHS = st.tuples(st.sampled_from("ab"), st.sampled_from("pq"), st.sampled_from("xyz"))


class Workers:
    """Takes slots until it is told to give them back, in the order in which they were taken."""

    def __init__(self, slots: FairSlots) -> None:
        self._slots = slots
        self._ends: list[asyncio.Event] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.begun: list[Path] = []

    async def start(self, *paths: Path) -> Sequence[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self._work(each)) for each in paths]
        self._tasks += tasks
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks

    async def _work(self, path: Path) -> None:
        async with self._slots.hold(path):
            end = asyncio.Event()
            self._ends.append(end)
            self.begun.append(path)
            await end.wait()

    async def end(self, number: int = 1) -> None:
        """End those that have had their slots for the longest time, one after the other."""
        for _ in range(number):
            before = len(self.begun)
            self._ends.pop(0).set()
            waiting = any(not each.done() for each in self._tasks) and before < len(self._tasks)
            if waiting:
                await until(lambda: len(self.begun) > before)  # noqa: B023 - awaited at once

    async def finish(self) -> None:
        while any(not each.done() for each in self._tasks):
            for end in self._ends:
                end.set()
            await asyncio.sleep(0)


@pytest.mark.requirement("SEC74")
async def test_an_account_with_many_waiters_delays_others_by_one_turn() -> None:
    workers = Workers(FairSlots((1, 1, 1)))
    await workers.start(*[ONE] * 100, TWO, ANOTHER)
    await workers.end(4)
    assert {TWO, ANOTHER} <= set(workers.begun[:5])
    await workers.finish()


@pytest.mark.requirement("SEC74")
async def test_nobody_holds_more_than_his_share() -> None:
    workers = Workers(FairSlots((8, 4, 3)))
    await workers.start(*[ONE] * 10, *[TWO] * 10)
    assert (workers.begun.count(ONE), workers.begun.count(TWO)) == (3, 1)
    await workers.start(*[ANOTHER] * 10)
    assert workers.begun.count(ANOTHER) == 3
    assert len(workers.begun) == 7
    await workers.finish()


@pytest.mark.requirement("SEC74")
async def test_who_gives_up_leaves_his_place_and_his_slot() -> None:
    workers = Workers(FairSlots((1, 1, 1)))
    (holding,) = await workers.start(ONE)
    first, _ = await workers.start(TWO, ANOTHER)
    first.cancel()
    await asyncio.sleep(0)
    holding.cancel()
    await until(lambda: len(workers.begun) == 2)
    assert workers.begun == [ONE, ANOTHER]
    await workers.finish()


@pytest.mark.requirement("SEC74")
async def test_a_slot_that_was_granted_at_the_moment_of_giving_up_is_not_lost() -> None:
    slots = FairSlots((1, 1, 1))
    workers = Workers(slots)
    (holding,) = await workers.start(ONE)
    (granted,) = await workers.start(TWO)
    holding.cancel()
    await asyncio.sleep(0)  # the slot is given to the second one, whose task has not gone on yet
    granted.cancel()
    await asyncio.gather(holding, granted, return_exceptions=True)
    async with asyncio.timeout(5), slots.hold(ANOTHER):
        pass


async def served(limits: Sequence[int], *waiting: Path) -> list[Path]:
    """The order in which those get their slots that wait for them at the same time."""
    slots, order, gate = FairSlots(limits), list[Path](), asyncio.Event()

    async def occupy() -> None:
        async with slots.hold(("other", "profile", "account")):
            await gate.wait()

    async def take(leaf: Path) -> None:
        async with slots.hold(leaf):
            order.append(leaf)

    async with asyncio.TaskGroup() as group:
        group.create_task(occupy())
        await asyncio.sleep(0)
        for leaf in waiting:
            group.create_task(take(leaf))
        await asyncio.sleep(0)
        gate.set()
    return order


ONLY = (1, 1, 1, 1)


@pytest.mark.requirement("SEC75")
async def test_namespaces_take_turns_then_profiles_then_accounts() -> None:
    busy = [("busy", "open", f"account-{number}") for number in range(100)]
    order = await served(ONLY, *busy, ("busy", "closed", "account"), ("quiet", "web", "account"))
    assert order[:4] == [busy[0], ("quiet", "web", "account"), ("busy", "closed", "account"), busy[1]]
    assert order[4:] == busy[2:]


@given(st.lists(PATHS, max_size=30), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2))
def test_everyone_is_served_and_no_limit_is_exceeded(
    leaves: list[Path], total: int, namespace: int, account: int
) -> None:
    limits = (total, namespace, namespace, account)
    held: Counter[Path] = Counter()
    done: list[Path] = []

    async def take(slots: FairSlots, leaf: Path) -> None:
        async with slots.hold(leaf):
            for depth in range(4):
                held[leaf[:depth]] += 1
                assert held[leaf[:depth]] <= limits[depth]
            await asyncio.sleep(0)
            for depth in range(4):
                held[leaf[:depth]] -= 1
        done.append(leaf)

    async def run() -> None:
        slots = FairSlots(limits)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            for leaf in leaves:
                group.create_task(take(slots, leaf))

    asyncio.run(run())
    assert sorted(done) == sorted(leaves)


async def test_who_gives_up_waiting_leaves_the_slot_to_the_next() -> None:
    slots = FairSlots(ONLY)
    leaf = ("a", "p", "x")
    async with slots.hold(leaf):
        tasks = [asyncio.create_task(_hold(slots, (namespace, "p", "x"))) for namespace in "ab"]
        await asyncio.sleep(0)
        tasks[0].cancel()
    async with asyncio.timeout(10):
        await tasks[1]
        await _hold(slots, leaf)


async def test_who_gives_up_with_the_slot_already_given_returns_it() -> None:
    slots = FairSlots(ONLY)
    leaf = ("a", "p", "x")
    async with slots.hold(leaf):
        waiting = asyncio.create_task(_hold(slots, leaf))
        await asyncio.sleep(0)
    waiting.cancel()  # it has the slot, and has not run since
    async with asyncio.timeout(10):
        await _hold(slots, leaf)
    assert waiting.cancelled()


async def _hold(slots: FairSlots, leaf: Path) -> None:
    async with slots.hold(leaf):
        await asyncio.sleep(0)
