"""The work queue: once in line, one at a time, nothing missed."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms_operator.queue import WorkQueue
from tests.support.eventually import until


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def queue(clock: Clock | None = None) -> WorkQueue[str]:
    return WorkQueue(time=clock, random=lambda: 0.0)


async def taken(one: WorkQueue[str]) -> str:
    async with asyncio.timeout(10), one.take() as key:
        return key


async def failing(one: WorkQueue[str]) -> None:
    async with one.take() as key:
        one.add(key)
        _ = 1 / 0


async def test_keys_come_in_the_order_in_which_they_were_added_and_each_once() -> None:
    one = queue()
    for key in "abab":
        one.add(key)
    assert [await taken(one), await taken(one)] == ["a", "b"]
    assert len(one) == 0


async def test_a_key_waits_for_its_time_and_then_wakes_a_worker() -> None:
    one = queue()
    one.add("later", delay=0.05)
    assert len(one) == 0
    assert await taken(one) == "later"


async def test_the_earliest_time_counts() -> None:
    clock = Clock()
    one = queue(clock)
    one.add("a", delay=10)
    one.add("a", delay=1)
    one.add("a", delay=5)
    clock.now = 1
    assert await taken(one) == "a"
    clock.now = 20
    one.add("b")
    assert await taken(one) == "b", "what was scheduled first has been done"


async def test_a_key_is_never_with_two_workers_and_comes_again_when_added_meanwhile() -> None:
    one = queue()
    one.add("a")
    async with one.take() as first:
        one.add("a")
        waiting = asyncio.ensure_future(taken(one))
        await asyncio.sleep(0.01)
        assert (first, waiting.done(), len(one)) == ("a", False, 2)
    assert await waiting == "a"


async def test_a_key_that_is_worked_on_does_not_hold_up_others() -> None:
    one = queue()
    one.add("a")
    async with one.take():
        one.add("a")
        one.add("b")
        assert await taken(one) == "b"


async def test_what_was_added_while_nobody_could_take_it_is_taken_when_the_worker_fails() -> None:
    one = queue()
    one.add("a")
    with pytest.raises(ZeroDivisionError):
        await failing(one)
    assert await taken(one) == "a"


async def test_retries_come_later_each_time_and_begin_anew_after_a_success() -> None:
    clock = Clock()
    one = queue(clock)
    delays = [one.retry("a") for _ in range(12)]
    assert delays[:3] == [0.2, 0.4, 0.8]
    assert delays[-1] == 60
    one.reset_backoff("a")
    assert one.retry("a") == 0.2
    assert one.retry("a", after=7.0) == 7.0


async def test_a_worker_that_waits_is_woken_by_a_new_key() -> None:
    one = queue()
    waiting = asyncio.ensure_future(taken(one))
    await asyncio.sleep(0)
    one.add("a")
    await until(waiting.done)
    assert waiting.result() == "a"


def fair() -> WorkQueue[tuple[str, int]]:
    """A queue of (namespace, number)."""
    return WorkQueue(group=lambda key: key[0], random=lambda: 0.0)


@pytest.mark.requirement("SEC75")
async def test_2000_keys_of_one_namespace_do_not_hold_up_the_key_of_another() -> None:
    one = fair()
    for number in range(2000):
        one.add(("busy", number))
    served = [await _take(one) for _ in range(10)]
    one.add(("quiet", 0))
    while served[-1][0] != "quiet":
        served.append(await _take(one))
    assert len(served) - 10 <= 2, "turns until another namespace is served"
    assert [number for namespace, number in served if namespace == "busy"] == list(range(len(served) - 1))


@pytest.mark.requirement("SEC75")
async def test_namespaces_take_turns_and_each_keeps_its_order() -> None:
    one = fair()
    for namespace in "aab":
        for number in range(3):
            one.add((namespace, number))
    assert [await _take(one) for _ in range(6)] == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    one.add(("b", 7))
    one.add(("a", 7))
    assert [await _take(one) for _ in range(2)] == [("b", 7), ("a", 7)], "an idle namespace has saved up no turns"


async def _take(one: WorkQueue[tuple[str, int]]) -> tuple[str, int]:
    async with asyncio.timeout(10), one.take() as key:
        return key


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=30))
def test_every_key_that_was_added_is_taken_exactly_once(added: list[tuple[str, int]]) -> None:
    async def drain() -> list[str]:
        clock = Clock()
        one = queue(clock)
        for key, delay in added:
            one.add(key, delay=delay)
        clock.now = 5
        return [await taken(one) for _ in range(len(one))]

    assert sorted(asyncio.run(drain())) == sorted({key for key, _ in added})
