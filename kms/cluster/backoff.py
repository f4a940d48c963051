"""When to try again: quickly after a lost race, patiently after a failure; never all replicas at the same moment."""

from __future__ import annotations

import asyncio
import random as _random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

Random = Callable[[], float]
"""A number from 0 up to 1. Spreads retries; nothing secret hangs on it."""
Sleep = Callable[[float], Awaitable[None]]

SHORTEST_PAUSE = 0.010
LONGEST_PAUSE = 0.200
FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 30.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How loops take their time; tests hand in their own."""

    sleep: Sleep = asyncio.sleep
    random: Random = _random.random
    monotonic: Callable[[], float] = time.monotonic


async def attempts(
    *, tries: int = 5, sleep: Sleep = asyncio.sleep, random: Random = _random.random
) -> AsyncIterator[int]:
    """0, 1, ... for a loop that writes and may lose a race; pauses of 10 to 200 ms lie between.

    A loop that runs out has lost every time: its writer then answers Unavailable.
    """
    for attempt in range(tries):
        if attempt:
            ceiling = min(LONGEST_PAUSE, SHORTEST_PAUSE * 3**attempt)
            await sleep(SHORTEST_PAUSE + random() * (ceiling - SHORTEST_PAUSE))
        yield attempt


class Backoff:
    """Seconds to wait after each failure in a row: 1, 2, 4, ... 30, each shortened by up to a half."""

    def __init__(self, random: Random = _random.random) -> None:
        self._random = random
        self._failures = 0

    def next(self) -> float:
        """The wait after one more failure."""
        wait = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0**self._failures)
        if wait < LONGEST_BACKOFF:
            self._failures += 1
        return wait * (1 - self._random() / 2)

    def reset(self) -> None:
        """Something has worked: begin from the first wait again."""
        self._failures = 0
