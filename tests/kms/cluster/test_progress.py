from __future__ import annotations

import asyncio

from kms.cluster.progress import Progress
from tests.support.eventually import until


async def test_a_caller_waits_until_the_watch_has_come_so_far() -> None:
    progress = Progress(patience=60)
    progress.move(5)
    assert await progress.reach(5)
    waiting = {version: asyncio.create_task(progress.reach(version)) for version in (8, 6, 7)}
    await until(lambda: len(progress) == 3)
    progress.move(7)
    assert await waiting[6]
    assert await waiting[7]
    assert not waiting[8].done()
    progress.move(9)
    assert await waiting[8]


async def test_a_watch_that_stands_still_costs_one_wait_however_many_ask() -> None:
    progress = Progress(patience=0.05)
    progress.move(1)
    assert not any(await asyncio.gather(*(progress.reach(2**40 + number) for number in range(500))))
    assert len(progress) == 0
    late = asyncio.create_task(progress.reach(2))
    await asyncio.sleep(0)
    assert late.done(), "nobody waits again before the watch has moved"
    assert not late.result()
    progress.move(2)
    moved = asyncio.create_task(progress.reach(3))
    await until(lambda: len(progress) == 1)
    progress.move(3)
    assert await moved


async def test_a_caller_that_gives_up_leaves_the_others_waiting() -> None:
    progress = Progress(patience=60)
    progress.move(1)
    one, other = (asyncio.create_task(progress.reach(2)) for _ in range(2))
    await until(lambda: len(progress) == 2)
    one.cancel()
    await asyncio.wait((one,))
    progress.move(2)
    assert await other


async def test_before_the_watch_and_without_integers_nobody_waits() -> None:
    progress = Progress(patience=60)
    assert not await progress.reach(1)
    progress.move(4)
    waiting = asyncio.create_task(progress.reach(5))
    await until(lambda: len(progress) == 1)
    progress.move(None)
    assert not await waiting
    assert not await progress.reach(1)


async def test_a_watch_that_starts_over_may_be_at_a_lower_version() -> None:
    progress = Progress(patience=0)
    progress.move(9)
    progress.move(3)
    assert not await progress.reach(9)
    assert await progress.reach(3)
