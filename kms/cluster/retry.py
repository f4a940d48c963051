"""When to try again: after a lost race, after a failure, and after a request that the API server did not answer.

Requests are sent again about as client-go does it, but a write never reports a conflict with its own first attempt.
The verb and the knowledge about the failed attempt (`Delivery`) decide which requests are sent again:

===============  ============================================  ====================================================
NOT_BEGUN        429, or there was no connection               every verb: nothing has happened
IN_DOUBT         5xx with Retry-After: etcd did not answer in  reads, and create, update and patch, but then only
                 time, or the API server is still starting     success counts as an answer; no delete, which could
                                                               delete a new object of the same name
CONNECTION_LOST  the connection broke before the answer came   reads: a write has most likely happened
UNKNOWN          anything else: a deadline, 5xx by itself      none
===============  ============================================  ====================================================

After an attempt in doubt, the next one may be refused because of it: Conflict, AlreadyExists, a quota that the object
itself has filled. The result is then Unavailable in any case, and the caller has to read the object.

A call ends after five attempts, or if the next attempt would begin more than 5.4 of its 9 seconds after the first. An
API server that shuts down asks for a wait of 5 s, which fits into that. cert-manager waits at least as long after a
503, so that waiting here costs its order no time.
"""

from __future__ import annotations

import asyncio
import random as _random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from kms.cluster.errors import ClusterError, Delivery, Unavailable

Random = Callable[[], float]
"""A number from 0 up to 1. It spreads retries; no secret depends on it."""
Sleep = Callable[[float], Awaitable[None]]

TRIES = 5
PATIENCE = 0.6
"""The share of a call's deadline in which an attempt may begin: the rest is for its answer."""
RESERVE = 32
"""Half of the requests that a transport has in flight at most."""
SHARE = 0.5

_READS = frozenset({"get", "list"})
_GUARDED = frozenset({"create", "update", "patch"})
"""Writes that a second attempt does not do twice: a name or a version is in the way. Only an Event may appear twice."""
_AGAIN = {
    Delivery.NOT_BEGUN: _READS | _GUARDED | {"delete"},
    Delivery.IN_DOUBT: _READS | _GUARDED,
    Delivery.CONNECTION_LOST: _READS,
    Delivery.UNKNOWN: frozenset[str](),
}


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How loops wait and read the time; tests pass their own."""

    sleep: Sleep = asyncio.sleep
    random: Random = _random.random
    monotonic: Callable[[], float] = time.monotonic


class Backoff:
    """Seconds to wait after each failure in a row: `first`, then twice as long each time, up to `longest`.

    Each wait is shortened by up to a half, so that many replicas that failed together do not come back together.
    """

    def __init__(self, *, first: float = 1.0, longest: float = 30.0, random: Random = _random.random) -> None:
        self._first = first
        self._longest = longest
        self._random = random
        self._next = first

    def next(self) -> float:
        """The wait after one more failure."""
        wait, self._next = self._next, min(self._longest, self._next * 2)
        return wait * (1 - self._random() / 2)

    def reset(self) -> None:
        """Start over with the first wait, after a success."""
        self._next = self._first


class Attempts:
    """0, 1, ... for a loop that writes and may lose a race, with pauses of 10 to 200 ms between.

    A loop that runs out has lost every time: its writer then answers Unavailable. Most loops end in their first turn.
    So this is no generator: one that is left early is closed by a task of its own.
    """

    def __init__(self, *, tries: int = TRIES, sleep: Sleep = asyncio.sleep, random: Random = _random.random) -> None:
        self._tries = tries
        self._sleep = sleep
        self._backoff = Backoff(first=0.02, longest=0.2, random=random)
        self._made = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        attempt = self._made
        if attempt == self._tries:
            raise StopAsyncIteration
        if attempt:
            await self._sleep(self._backoff.next())
        self._made += 1
        return attempt


class Budget:
    """How often all calls together may be repeated: 32 times, and then once for every two calls that succeed.

    So an overloaded API server gets at most half as many requests again as it answers, and one that refuses every
    request soon gets no repetitions at all.
    """

    def __init__(self) -> None:
        self._left = float(RESERVE)

    def earn(self) -> None:
        """Add the share of a call that has succeeded."""
        self._left = min(RESERVE, self._left + SHARE)

    def spend(self) -> bool:
        """Take one attempt out; False if none is left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Call:
    """The attempts of one call. `patience` in seconds is how late, after the first attempt, the last one may begin."""

    def __init__(self, verb: str, budget: Budget, *, patience: float, random: Random) -> None:
        self._verb = verb
        self._budget = budget
        self._patience = patience
        self._backoff = Backoff(first=0.1, longest=0.8, random=random)
        self._failed = 0
        self._doubt: Unavailable | None = None

    def pause(self, error: ClusterError, elapsed: float) -> float:
        """The seconds to wait before the next attempt, after one that failed `elapsed` seconds after the first began.

        The wait comes on top of what the API server asks for. Raises what the caller must know where there is no next
        attempt.
        """
        if not isinstance(error, Unavailable):
            raise error if self._doubt is None else self._doubt from error
        if self._verb not in _AGAIN[error.delivery]:
            raise error
        if error.delivery is Delivery.IN_DOUBT and self._verb in _GUARDED:
            self._doubt = error
        self._failed += 1
        wait = (error.retry_after or 0.0) + self._backoff.next()
        if self._failed >= TRIES or elapsed + wait > self._patience or not self._budget.spend():
            raise error
        return wait
