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
    """Ended orders of profiles that `is_wanted`, as the index learns of them, if they are younger than `kept`."""

    def __init__(
        self, index: Index[ACMEOrder], *, is_wanted: Callable[[Key], bool], clock: Clock, kept: timedelta
    ) -> None:
        super().__init__(index)
        self._is_wanted = is_wanted
        self._clock = clock
        self._kept = kept
        self._by_profile: defaultdict[Key, list[Change]] = defaultdict(list)

    def put(self, key: Key, order: ACMEOrder) -> None:
        """Remember the version of an order that has ended."""
        time = _last_event(order)
        if time is None or not order.metadata.resource_version.isdigit():
            return
        oldest = self._clock() - self._kept
        if time > oldest and self._is_wanted(order.profile_key):
            changes = self._by_profile[order.profile_key]
            while changes and changes[0].time < oldest:
                heapq.heappop(changes)
            heapq.heappush(changes, Change(int(order.metadata.resource_version), key, time))

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
