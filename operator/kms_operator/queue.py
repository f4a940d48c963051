"""A work queue of keys: each at most once in line, and never with two workers at once.

A key that is added while a worker has it is processed again afterwards, so that no change is missed. A key may be added
with a delay; only the earliest time counts, because a reconciliation sees all changes up to then.

A key that has failed is held until its delay is over, whatever is added meanwhile: the worker may have written
something before it failed, and its own write must not be what makes it try again.

Groups of keys take turns: a group with thousands of keys delays a key of another group by one turn only.
"""

from __future__ import annotations

import asyncio
import heapq
import random as _random
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from kms.cluster.retry import Backoff

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Failing:
    """The failures of a key in a row: how many, and until when it is held."""

    backoff: Backoff
    count: int = 0
    held_until: float = 0.0


class WorkQueue(Generic[K]):
    """For one event loop. `time` is monotonic seconds; `random` draws from [0, 1) to spread retries.

    Keys that are due are taken from one `group` after the other, and within a group in the order in which they became
    due; by default all are one group. The retries of a key that fails begin `min_retry_seconds` apart and double up to
    `max_retry_seconds`.
    """

    def __init__(
        self,
        *,
        group: Callable[[K], Hashable] = lambda _: None,
        time: Callable[[], float] | None = None,
        random: Callable[[], float] = _random.random,
        min_retry_seconds: float = 0.2,
        max_retry_seconds: float = 60.0,
    ) -> None:
        self._group = group
        self._min_retry_seconds = min_retry_seconds
        self._max_retry_seconds = max_retry_seconds
        self._time = time or (lambda: asyncio.get_running_loop().time())
        self._random = random
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0
        self._ready: dict[Hashable, deque[K]] = {}
        self._in_line: set[K] = set()
        self._active: set[K] = set()
        self._failing: dict[K, _Failing] = {}
        self._unheld: set[K] = set()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Count the keys that are due or that a worker has; those scheduled for later do not count."""
        now = self._time()
        return len(self._active) + sum(due <= now for due in self._due.values())

    def add(self, key: K, *, delay: float = 0.0, held: bool = True) -> None:
        """Schedule `key` in `delay` seconds, or earlier if it is already scheduled earlier.

        A key that has failed is scheduled no earlier than `retry` did, unless it is not `held`.
        """
        due = self._time() + delay
        if not held:
            self._unheld.add(key)
        elif (failing := self._failing.get(key)) is not None:
            due = max(due, failing.held_until)
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._push(key, due)

    def retry(self, key: K, *, after: float | None = None, held: bool = True) -> float:
        """Schedule a failed `key` again, with a growing delay; returns the delay in seconds.

        The delay is at least `after`, which the API server asked for. Unless the key is `held`, `add` may shorten it.
        """
        failing = self._failing.get(key)
        if failing is None:
            backoff = Backoff(first=self._min_retry_seconds, longest=self._max_retry_seconds, random=self._random)
            failing = self._failing[key] = _Failing(backoff)
        delay = max(failing.backoff.next(), after or 0.0)
        failing.count += 1
        failing.held_until = self._time() + (delay if held else 0.0)
        if held and key not in self._unheld:
            self._due.pop(key, None)  # what was added while the worker had it
        self.add(key, delay=delay)
        return delay

    def failures(self, key: K) -> int:
        """Count how often `key` has failed in a row."""
        failing = self._failing.get(key)
        return failing.count if failing is not None else 0

    def reset_backoff(self, key: K) -> None:
        """Start the delays of `key` from the first one again."""
        self._failing.pop(key, None)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[K]:
        """Wait for a due key. No other worker gets it until the block ends."""
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
        """Take the next key of the group whose turn it is."""
        self._line_up()
        if not self._ready:
            return None
        group = next(iter(self._ready))
        keys = self._ready.pop(group)
        key = keys.popleft()
        if keys:
            self._ready[group] = keys  # at the end: the other groups come first
        self._in_line.discard(key)
        del self._due[key]
        self._unheld.discard(key)
        self._active.add(key)
        return key

    def _line_up(self) -> None:
        """Put the keys that are due and that no worker has in line; drop outdated entries on the way."""
        while self._heap and self._heap[0][0] <= self._time():
            due, _, key = heapq.heappop(self._heap)
            # The worker that has the key pushes it again.
            if self._due.get(key) == due and key not in self._active and key not in self._in_line:
                self._in_line.add(key)
                self._ready.setdefault(self._group(key), deque()).append(key)

    def _push(self, key: K, due: float) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))
        self._changed.set()
