"""Orders that may have something to tell, by profile, in the order of their resourceVersions.

Every replica keeps them, so that the next leader goes on where the last one was: what is newer than the stored version
is told. They are forgotten once they are too old to be told.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from acme_server.state.index import Index, View
from kms.clock import Clock
from kms.resources.meta import Key
from kms.resources.orders import ACMEOrder


class Change(NamedTuple):
    """A version of an order."""

    version: int
    order: Key
    time: datetime


class Changes(View[ACMEOrder]):
    """Ended orders of profiles that `is_wanted`, as the index learns of them, if they are younger than `kept`.

    `sweep`: after that time, an order that ends makes it forget the changes of all profiles that are too old or not
    wanted any more. Only the replica that leads takes changes, and only those of profiles with a receiver.
    """

    def __init__(
        self,
        index: Index[ACMEOrder],
        *,
        is_wanted: Callable[[Key], bool],
        clock: Clock,
        kept: timedelta,
        sweep: timedelta = timedelta(minutes=10),
    ) -> None:
        super().__init__(index)
        self._is_wanted = is_wanted
        self._clock = clock
        self._kept = kept
        self._sweep_every = sweep
        self._swept = clock()
        self._by_profile: defaultdict[Key, list[Change]] = defaultdict(list)

    def put(self, key: Key, order: ACMEOrder) -> None:
        """Remember the version of an order that has ended."""
        time = _last_event(order)
        if time is None or not order.metadata.resource_version.isdigit():
            return
        now = self._clock()
        if now - self._swept >= self._sweep_every:
            self._sweep(now)
        if time > now - self._kept and self._is_wanted(order.profile_key):
            change = Change(int(order.metadata.resource_version), key, time)
            heapq.heappush(self._by_profile[order.profile_key], change)

    def _sweep(self, now: datetime) -> None:
        self._swept, oldest = now, now - self._kept
        for profile, changes in [*self._by_profile.items()]:
            while changes and changes[0].time < oldest:
                heapq.heappop(changes)
            if not changes or not self._is_wanted(profile):
                del self._by_profile[profile]

    def __len__(self) -> int:
        """The changes that are kept."""
        return sum(map(len, self._by_profile.values()))

    def remove(self, key: Key) -> None:
        """Nothing: whoever tells of the order finds that it is gone."""

    def obscure(self, key: Key) -> None:
        """Nothing: an order that cannot be read has nothing to tell."""

    def first(self, profile: Key, *, after: int) -> Change | None:
        """The oldest change of an order of the profile that is newer than this version."""
        changes = self._by_profile.get(profile)
        while changes and changes[0].version <= after:
            heapq.heappop(changes)
        return changes[0] if changes else None

    def done(self, profile: Key, change: Change) -> None:
        """The change has been told."""
        changes = self._by_profile.get(profile, [])
        if changes and changes[0] == change:
            heapq.heappop(changes)
        elif change in changes:
            changes.remove(change)
            heapq.heapify(changes)


def _last_event(order: ACMEOrder) -> datetime | None:
    status = order.status
    if status.revocation is not None:
        return status.revocation.time
    if status.state == "valid":
        return status.issued_at
    if status.state == "invalid":
        return max((each.last_transition_time for each in status.conditions), default=None)
    return None
