from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from acme_server.fair_slots import FairSlots, Holder
from tests.support.eventually import until

pytestmark = pytest.mark.requirement("SEC74")

ONE, TWO, ANOTHER = Holder("team-a", "one"), Holder("team-a", "two"), Holder("team-b", "one")


class Workers:
    """Takes slots until it is told to give them back, in the order in which they were taken."""

    def __init__(self, slots: FairSlots) -> None:
        self._slots = slots
        self._ends: list[asyncio.Event] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.begun: list[Holder] = []

    async def start(self, *holders: Holder) -> Sequence[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self._work(each)) for each in holders]
        self._tasks += tasks
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks

    async def _work(self, holder: Holder) -> None:
        async with self._slots.hold(holder):
            end = asyncio.Event()
            self._ends.append(end)
            self.begun.append(holder)
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


async def test_an_account_with_many_waiters_delays_others_by_one_turn() -> None:
    workers = Workers(FairSlots(1, by_namespace=1, by_account=1))
    await workers.start(*[ONE] * 100, TWO, ANOTHER)
    await workers.end(4)
    assert {TWO, ANOTHER} <= set(workers.begun[:5])
    await workers.finish()


async def test_nobody_holds_more_than_his_share() -> None:
    workers = Workers(FairSlots(8, by_namespace=4, by_account=3))
    await workers.start(*[ONE] * 10, *[TWO] * 10)
    assert (workers.begun.count(ONE), workers.begun.count(TWO)) == (3, 1)
    await workers.start(*[ANOTHER] * 10)
    assert workers.begun.count(ANOTHER) == 3
    assert len(workers.begun) == 7
    await workers.finish()


async def test_who_gives_up_leaves_his_place_and_his_slot() -> None:
    workers = Workers(FairSlots(1, by_namespace=1, by_account=1))
    (holding,) = await workers.start(ONE)
    first, _ = await workers.start(TWO, ANOTHER)
    first.cancel()
    await asyncio.sleep(0)
    holding.cancel()
    await until(lambda: len(workers.begun) == 2)
    assert workers.begun == [ONE, ANOTHER]
    await workers.finish()


async def test_a_slot_that_was_granted_at_the_moment_of_giving_up_is_not_lost() -> None:
    slots = FairSlots(1, by_namespace=1, by_account=1)
    workers = Workers(slots)
    (holding,) = await workers.start(ONE)
    (granted,) = await workers.start(TWO)
    holding.cancel()
    await asyncio.sleep(0)  # the slot is given to the second one, whose task has not gone on yet
    granted.cancel()
    await asyncio.gather(holding, granted, return_exceptions=True)
    async with asyncio.timeout(5), slots.hold(ANOTHER):
        pass
