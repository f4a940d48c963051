"""Turns at an external CA: a number of orders at a time, with shares. For one replica; nothing is sent here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from kms.resources.meta import Key
from kms.shares import HALF, share_of


@dataclass
class _Line:
    """The orders at a CA. `active` have their turn, each with its holder; `waiting` has the others by holder."""

    maximum: int
    active: dict[Key, str] = field(default_factory=dict)
    used: Counter[str] = field(default_factory=Counter)
    waiting: dict[str, dict[Key, int]] = field(default_factory=dict)

    def fill(self) -> tuple[Key, ...]:
        """Give the free places to those who came first, within their shares. Returns who has a turn now."""
        called: list[Key] = []
        while len(self.active) < self.maximum:
            firsts = [(next(iter(keys.items())), holder) for holder, keys in self.waiting.items() if self._may(holder)]
            if not firsts:
                break
            (key, _), holder = min(firsts, key=lambda each: each[0][1])
            self.drop(key, holder)
            self.active[key] = holder
            self.used[holder] += 1
            called.append(key)
        return tuple(called)

    def drop(self, key: Key, holder: str) -> None:
        """Take the order out of the line."""
        keys = self.waiting.get(holder, {})
        keys.pop(key, None)
        if not keys:
            self.waiting.pop(holder, None)

    def _may(self, holder: str) -> bool:
        used = self.used[holder]
        return used < share_of(self.maximum, len(self.active) - used, HALF)


class Turns:
    """Who may ask a CA: a number of orders at a time, in the order of their arrival.

    Requests may wait for people for days, so a holder, an account or a tenant with all of its accounts, has a share of
    the places: half of those that others leave.
    """

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._places: dict[Key, tuple[str, str]] = {}
        self._arrived = 0

    def has_turn(self, authority: str, key: Key, holder: str, *, maximum: int) -> bool:
        """Whether the order may ask the CA. It stands in the line of the CA from now on."""
        line = self._lines.setdefault(authority, _Line(maximum))
        line.maximum = maximum
        if key not in self._places:
            self._arrived += 1
            self._places[key] = authority, holder
            line.waiting.setdefault(holder, {})[key] = self._arrived
        line.fill()
        return key in line.active

    def leave(self, key: Key) -> tuple[Key, ...]:
        """Let the order leave its line. Returns the orders whose turn it is now."""
        authority, holder = self._places.pop(key, ("", ""))
        line = self._lines.get(authority)
        if line is None:
            return ()
        line.drop(key, holder)
        if line.active.pop(key, None) is not None:
            line.used[holder] -= 1
            if not line.used[holder]:
                del line.used[holder]
        if not line.active and not line.waiting:
            del self._lines[authority]
            return ()
        return line.fill()
