"""When objects were deleted last, as far as this program has seen. Pure: the time is an argument.

What is kept for a deleted object says since when it has been gone. An object that is created again and deleted again
before anybody looks would leave that as it was, and what belongs to it would go too early.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from datetime import datetime


class Deletions:
    """The latest deletions of objects by name; at most `remembered`, of which the earliest is forgotten first."""

    def __init__(self, *, remembered: int = 10_000) -> None:
        self._remembered = remembered
        self._times: OrderedDict[Hashable, datetime] = OrderedDict()

    def note(self, name: Hashable, now: datetime) -> None:
        """Remember that the object of that name is deleted now."""
        self._times[name] = now.replace(microsecond=0)  # as annotations have it
        self._times.move_to_end(name)
        if len(self._times) > self._remembered:
            self._times.popitem(last=False)

    def after(self, name: Hashable, since: datetime) -> datetime | None:
        """When the object was deleted once more after `since`; None: not as far as is remembered."""
        latest = self._times.get(name)
        return latest if latest is not None and latest > since else None
