"""Keys of what needs a look: each at most once in line, and never with two workers at once.

A key that is added while it is worked on comes again afterwards, so nothing that happened meanwhile is missed. A key
may be added for later; only the earliest time counts, because reconciling sees whatever there is to see by then.
"""

from __future__ import annotations

import asyncio
import heapq
import random as _random
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_RETRY = 0.2
LAST_RETRY = 60.0
"""Seconds between the first tries of a key that fails, and between later ones."""


class WorkQueue(Generic[K]):
    """For one event loop. `time` is monotonic seconds; `random` draws from [0, 1) to spread retries."""

    def __init__(
        self, *, time: Callable[[], float] | None = None, random: Callable[[], float] = _random.random
    ) -> None:
        self._time = time or (lambda: asyncio.get_running_loop().time())
        self._random = random
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0
        self._active: set[K] = set()
        self._failures: dict[K, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """How many keys are due or being worked on; what is scheduled for later does not count."""
        now = self._time()
        return len(self._active) + sum(due <= now for due in self._due.values())

    def add(self, key: K, *, delay: float = 0.0) -> None:
        """Have `key` looked at in `delay` seconds, or earlier if it was to be already."""
        due = self._time() + delay
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._push(key, due)

    def retry(self, key: K, *, after: float | None = None) -> float:
        """Have a failed `key` looked at again, later each time; returns the delay in seconds.

        `after` is what the API server asked for; it is never undercut.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failures, 16)) * (0.5 + self._random() / 2)
        delay = max(delay, after or 0.0)
        self.add(key, delay=delay)
        return delay

    def succeeded(self, key: K) -> None:
        """The next failure of `key` is its first again."""
        self._failures.pop(key, None)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[K]:
        """The next due key, which is nobody else's until the block ends."""
        key = await self._next()
        try:
            yield key
        finally:
            self._active.discard(key)
            if key in self._due:
                self._push(key, self._due[key])

    async def _next(self) -> K:
        while True:
            self._changed.clear()
            if (key := self._pop()) is not None:
                return key
            wait = self._heap[0][0] - self._time() if self._heap else None
            # Not wait_for: before Python 3.12 it may swallow a cancellation, and the worker would never end.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def _pop(self) -> K | None:
        """Take a key that is due and not being worked on; drop entries that are no longer true on the way."""
        while self._heap and self._heap[0][0] <= self._time():
            due, _, key = heapq.heappop(self._heap)
            # A key that is being worked on is pushed again by whoever works on it.
            if self._due.get(key) == due and key not in self._active:
                del self._due[key]
                self._active.add(key)
                return key
        return None

    def _push(self, key: K, due: float) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))
        self._changed.set()
