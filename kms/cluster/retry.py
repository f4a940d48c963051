"""When a request is sent again that has failed: about as client-go does it, but no write is ever told a wrong reason.

What is known of the failed attempt (`Fate`) decides, and the verb:

=========  ============================================  ==========================================================
UNTOUCHED  429, or there was no connection               every verb: nothing has happened
DOUBTFUL   5xx with Retry-After: etcd did not answer in  reads, and create, update and patch, but then only success
           time, or the API server is still starting     counts as an answer; no delete, which could meet what was
                                                         created under the name since
LOST       the connection broke before the answer came   reads: a write has most likely happened
OPEN       anything else: a deadline, 5xx by itself      none
=========  ============================================  ==========================================================

After an attempt that is in doubt, the next one may be refused because of it: Conflict, AlreadyExists, a quota that the
object itself has filled. So whatever it is refused for, the caller is told Unavailable: read before you rely on either.

A call gives up after five attempts, and where the next one would begin more than 5.4 of its 9 seconds after the
first. That is a little more than the longest that the API server asks for in passing (5 s, while it shuts down), and
what cert-manager lets pass after a 503 at least: to wait so long here makes nothing later there.
"""

from __future__ import annotations

from kms.cluster.backoff import Random
from kms.cluster.errors import ClusterError, Delivery, Unavailable

TRIES = 5
PATIENCE = 0.6
"""The share of a call's deadline in which an attempt may begin: what is left is for it to be answered."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 0.8
"""Seconds, on top of what the API server asks for: many who were refused at once come back one by one."""
RESERVE = 32
"""Half of what a transport has under way at most."""
SHARE = 0.5

_READS = frozenset({"get", "list"})
_GUARDED = frozenset({"create", "update", "patch"})
"""Writes that are not done twice by a second attempt: a name or a version is in the way. An Event may be told twice."""
_AGAIN = {
    Delivery.UNTOUCHED: _READS | _GUARDED | {"delete"},
    Delivery.DOUBTFUL: _READS | _GUARDED,
    Delivery.LOST: _READS,
    Delivery.OPEN: frozenset[str](),
}


class Budget:
    """How often all calls together may try again: 32 times, and then once for every two calls that succeed.

    So an API server that has too much to do is given at most half as much again as it gets done, and one that refuses
    everybody is soon asked only as often as if nobody tried again.
    """

    def __init__(self) -> None:
        self._left = float(RESERVE)

    def earn(self) -> None:
        """A call has succeeded."""
        self._left = min(RESERVE, self._left + SHARE)

    def spend(self) -> bool:
        """Take one attempt out of it; says whether there was one."""
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
        self._random = random
        self._failed = 0
        self._doubt: Unavailable | None = None

    def pause(self, error: ClusterError, elapsed: float) -> float:
        """An attempt has failed, `elapsed` seconds after the first began: how long to wait for the next one.

        Where there is to be none, raises what the caller must know.
        """
        if not isinstance(error, Unavailable):
            raise error if self._doubt is None else self._doubt from error
        if self._verb not in _AGAIN[error.fate]:
            raise error
        if error.fate is Delivery.DOUBTFUL and self._verb in _GUARDED:
            self._doubt = error
        self._failed += 1
        wait = self._wait(error.retry_after or 0.0)
        if self._failed >= TRIES or elapsed + wait > self._patience or not self._budget.spend():
            raise error
        return wait

    def _wait(self, asked_for: float) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (self._failed - 1))
        return asked_for + longest * (1 - self._random() / 2)
