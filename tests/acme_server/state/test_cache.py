from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from acme_server.state.cache import Cache, SharedReads
from kms.resources.accounts import ACMEAccount
from tests.support.accounts import account


def version(number: int, name: str = "a") -> ACMEAccount:
    made = account(name)
    return replace(made, metadata=replace(made.metadata, resource_version=str(number)))


KEY = ("pki", "a")


def test_an_older_version_does_not_replace_a_newer_one() -> None:
    cache: Cache[ACMEAccount] = Cache(10)
    assert cache.put(version(9)) == version(9)
    assert cache.put(version(8)) == version(9)
    assert cache.get(KEY) == version(9)
    assert cache.put(version(10)) == version(10)


def test_what_is_gone_does_not_come_back_with_a_late_read() -> None:
    cache: Cache[ACMEAccount] = Cache(10)
    cache.put(version(5))
    cache.remove(KEY, "7")
    assert cache.get(KEY) is None
    assert cache.put(version(6)) == version(6)
    assert cache.get(KEY) is None
    cache.put(version(8))  # created again under the same name
    assert cache.get(KEY) == version(8)
    cache.remove(KEY, "7")  # news of the old deletion, once more
    assert cache.get(KEY) == version(8)


def test_the_age_of_an_object_is_the_time_since_its_version_was_confirmed() -> None:
    now = 0.0
    cache: Cache[ACMEAccount] = Cache(10, timer=lambda: now)
    cache.put(version(5))
    now = 7.0
    cache.put(version(4))
    assert cache.age(KEY) == 7.0
    cache.put(version(5))
    assert cache.age(KEY) == 0.0
    now = 9.0
    assert cache.age(KEY) == 2.0
    cache.put(version(6))
    assert cache.age(KEY) == 0.0
    cache.drop(KEY)
    assert cache.age(KEY) == float("inf")


def test_what_was_used_last_stays() -> None:
    cache: Cache[ACMEAccount] = Cache(2)
    cache.put(version(1, "a"))
    cache.put(version(2, "b"))
    cache.get(KEY)
    cache.put(version(3, "c"))
    assert KEY in cache
    assert ("pki", "b") not in cache
    assert len(cache) == 2
    for number in range(10):
        cache.remove(("pki", f"gone-{number}"), "99")
    cache.put(version(9, "gone-0"))
    assert ("pki", "gone-0") in cache, "only the last deletions are remembered"
    cache.put(version(9, "gone-9"))
    assert ("pki", "gone-9") not in cache


@given(st.lists(st.tuples(st.sampled_from(["put", "remove"]), st.integers(1, 30)), max_size=30))
def test_whatever_the_order_of_news_the_newest_counts(news: list[tuple[str, int]]) -> None:
    cache: Cache[ACMEAccount] = Cache(10)
    for what, number in news:
        if what == "put":
            cache.put(version(number))
        else:
            cache.remove(KEY, str(number))
    puts = [number for what, number in news if what == "put"]
    removals = [number for what, number in news if what == "remove"]
    newest = max(puts, default=0)
    found = cache.get(KEY)
    if newest > max(removals, default=0):
        assert found == version(newest)
    elif found is not None:
        # Only where a later removal was followed by news of an earlier one.
        assert removals != sorted(removals)


class Reader:
    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()

    async def __call__(self, namespace: str, name: str) -> int:
        self.calls += 1
        mine = self.calls
        await self.gate.wait()
        if name == "broken":
            raise ValueError(namespace, name)
        return mine


async def test_callers_at_once_share_one_read() -> None:
    reader = Reader()
    reads = SharedReads(reader)
    reader.gate.set()
    assert await asyncio.gather(*(reads("pki", "a") for _ in range(100))) == [1] * 100


async def test_a_read_that_was_sent_before_is_not_shared() -> None:
    reader = Reader()
    reads = SharedReads(reader)
    first = asyncio.create_task(reads("pki", "a"))
    await asyncio.sleep(0.01)
    later = [asyncio.create_task(reads("pki", "a")) for _ in range(10)]
    other = asyncio.create_task(reads("pki", "b"))
    await asyncio.sleep(0.01)
    assert reader.calls == 2  # one for a, which the later ones must not join, and one for b
    reader.gate.set()
    assert await first == 1
    assert await other == 2
    assert await asyncio.gather(*later) == [3] * 10
    assert len(reads) == 0


async def test_a_caller_that_gives_up_does_not_take_the_answer_from_the_others() -> None:
    reader = Reader()
    reads = SharedReads(reader)
    impatient, patient = (asyncio.create_task(reads("pki", "a")) for _ in range(2))
    await asyncio.sleep(0.01)
    impatient.cancel()
    reader.gate.set()
    assert await patient == 1


async def test_a_failure_is_everybodys_and_the_next_read_is_a_new_one() -> None:
    reader = Reader()
    reads = SharedReads(reader)
    reader.gate.set()
    results = await asyncio.gather(*(reads("pki", "broken") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, ValueError) for each in results)
    with pytest.raises(ValueError, match="broken"):
        await reads("pki", "broken")
    assert reader.calls == 2


@pytest.mark.requirement("SEC72")
def test_a_cache_is_bounded_by_what_its_objects_weigh() -> None:
    weights = {"small": 10, "middle": 50, "large": 60}
    cache: Cache[ACMEAccount] = Cache(10, octets=100, weigh=lambda each: weights[each.metadata.name])

    def cached() -> list[str]:
        return [name for name in weights if ("pki", name) in cache]

    for name in weights:
        cache.put(version(1, name))
    assert cached() == ["large"]
    cache.put(version(1, "small"))
    assert cached() == ["small", "large"]
    cache.put(version(2, "large"))
    assert cached() == ["small", "large"]
    cache.drop(("pki", "large"))
    cache.put(version(1, "middle"))
    assert cached() == ["small", "middle"]
    cache.clear()
    cache.put(version(3, "large"))
    assert cached() == ["large"]
