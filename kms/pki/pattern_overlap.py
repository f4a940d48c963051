"""What patterns have in common: whether a value matches two of them, and whether one matches all values of another.

For reports about rules, not for decisions on names. Where an answer would take too long it is "yes" for an overlap and
"no" for a cover, and so it is in some contrived cases: a rule that is said to be without effect has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

_ANY = "**"

MAXIMUM_STEPS = 25_000
"""Pairs of labels that are compared for one report: about 50 ms."""


class Effort:
    """The steps that one report may take."""

    def __init__(self, steps: int = MAXIMUM_STEPS) -> None:
        self._left = steps

    def spend(self, steps: int) -> bool:
        """Take that many steps. Returns False once they are used up."""
        self._left -= steps
        return self._left >= 0


class PatternIndex:
    """Patterns by the literal labels at their end, so that those with another end cost nothing."""

    def __init__(self, patterns: Iterable[str], effort: Effort) -> None:
        self._effort = effort
        self._by_tail: dict[str, list[_Labels]] = {}
        self._below: dict[str, list[_Labels]] = {}
        for each in patterns:
            self.add(each)

    def add(self, pattern: str) -> None:
        """Add a pattern to those that are compared."""
        labels = _Labels(pattern)
        self._by_tail.setdefault(labels.tail, []).append(labels)
        for end in labels.ends:
            self._below.setdefault(end, []).append(labels)

    def find_overlapping(self, pattern: str) -> bool:
        """Whether some value may match both `pattern` and one of the patterns."""
        labels = _Labels(pattern)
        candidates = (*self._above(labels), *self._below.get(labels.tail, ()))
        return any(not self._spend(labels, each) or _overlap(labels.labels, each.labels) for each in candidates)

    def find_cover(self, pattern: str) -> str | None:
        """The first pattern that matches every value that `pattern` matches; None if there is none."""
        labels = _Labels(pattern)
        covers = (each for each in self._above(labels) if self._spend(labels, each))
        return next((each.text for each in covers if _covers(each.labels, labels.labels)), None)

    def _above(self, labels: _Labels) -> Iterator[_Labels]:
        """The patterns whose literal end is an end of these labels."""
        for end in labels.ends:
            yield from self._by_tail.get(end, ())

    def _spend(self, one: _Labels, other: _Labels) -> bool:
        return self._effort.spend(len(one.labels) * len(other.labels))


class _Labels:
    """A pattern by its labels. `ends` are the whole tail, its ends, and the empty one."""

    __slots__ = ("ends", "labels", "tail", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.labels = text.casefold().split(".")
        starred = [position for position, label in enumerate(self.labels) if "*" in label]
        literal = self.labels[starred[-1] + 1 :] if starred else self.labels
        self.ends = [".".join(literal[position:]) for position in range(len(literal) + 1)]
        self.tail = self.ends[0]


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether a value matches both: both patterns take one label after the other."""
    seen: set[tuple[int, int]] = set()
    waiting = [(0, 0)]
    while waiting:
        first, second = place = waiting.pop()
        if place == (len(one), len(other)):
            return True
        if place in seen or first == len(one) or second == len(other):
            continue
        seen.add(place)
        if _labels_overlap(one[first], other[second]):
            waiting += [(after, beyond) for after in _next(one, first) for beyond in _next(other, second)]
    return False


def _covers(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    """Whether every value of `narrow` matches `wide`: its stars count as text that only a star matches."""
    seen: set[tuple[int, int]] = set()
    waiting = [(0, 0)]
    while waiting:
        first, second = place = waiting.pop()
        if place == (len(wide), len(narrow)):
            return True
        if place in seen or first == len(wide) or second == len(narrow):
            continue
        seen.add(place)
        if _label_covers(wide[first], narrow[second]):
            waiting += [(after, second + 1) for after in _next(wide, first)]
    return False


def _next(labels: Sequence[str], position: int) -> tuple[int, ...]:
    """The places after one label was taken; `**` may take more."""
    return (position, position + 1) if labels[position] == _ANY else (position + 1,)


def _labels_overlap(one: str, other: str) -> bool:
    if _ANY in (one, other):
        return True
    if "*" not in one:
        return _label_covers(other, one)
    if "*" not in other:
        return _label_covers(one, other)
    # Between the first star of one and the last of the other there is room for what both want in the middle.
    begins, ends = (one.partition("*")[0], other.partition("*")[0]), (one.rpartition("*")[2], other.rpartition("*")[2])
    longest, last = max(begins, key=len), max(ends, key=len)
    return all(longest.startswith(each) for each in begins) and all(last.endswith(each) for each in ends)


def _label_covers(wide: str, narrow: str) -> bool:
    if wide == _ANY:
        return True
    if narrow == _ANY:
        return False
    if "*" not in wide:
        return wide == narrow
    first, *middle, last = wide.split("*")
    if len(narrow) < len(first) + len(last) or not (narrow.startswith(first) and narrow.endswith(last)):
        return False
    position, end = len(first), len(narrow) - len(last)
    for part in middle:
        found = narrow.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
