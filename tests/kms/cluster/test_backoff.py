from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kms.cluster.backoff import Backoff, attempts


async def _pauses(random: float, tries: int = 5) -> list[float]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    assert [each async for each in attempts(tries=tries, sleep=sleep, random=lambda: random)] == list(range(tries))
    return slept


async def test_the_first_attempt_does_not_wait() -> None:
    assert await _pauses(0.5, tries=1) == []


async def test_pauses_lie_between_10_and_200_milliseconds_and_grow() -> None:
    assert await _pauses(0.0) == [0.010] * 4
    longest = await _pauses(1.0)
    assert longest == sorted(longest)
    assert longest[-1] == 0.200


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 50))
def test_a_backoff_never_leaves_half_a_second_to_30_seconds(random: float, failures: int) -> None:
    backoff = Backoff(lambda: random)
    waits = [backoff.next() for _ in range(failures)]
    assert waits == sorted(waits)
    assert waits[0] <= 1
    assert all(0.5 <= each <= 30 for each in waits)


def test_a_backoff_begins_again_after_success() -> None:
    backoff = Backoff(lambda: 0.0)
    assert [backoff.next() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next() == 1
