"""Patterns of policies: `*` is any run of characters inside one label, `**` is one or more whole labels.

A pattern matches a whole value and ignores case; all characters but `*` match themselves. Matching takes time
proportional to the length of the pattern times the length of the value: there is no backtracking.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

MAXIMUM_PATTERN = 253
_DNS_PATTERN = re.compile(r"[a-z0-9*-]+(?:\.[a-z0-9*-]+)*")


class InvalidPattern(ValueError):
    """Text that is not a pattern; the message tells people what to write instead."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern. Make one with `label_pattern` or `value_pattern`."""

    text: str
    _labels: tuple[_LabelGlob | None, ...] = field(repr=False, compare=False)
    """One entry a label of the pattern; None is `**`."""
    _literals: tuple[str, ...] = field(repr=False, compare=False)
    """The parts between the stars. Every matching value contains all of them, which rules out most values quickly."""

    def matches(self, value: str) -> bool:
        """Whether the whole of `value` has this form."""
        folded = value.casefold()
        for literal in self._literals:
            if literal not in folded:
                return False
        return self._accepts(folded.split("."))

    def matches_below(self, base: str) -> bool:
        """Whether some name with exactly one label more than `base` has this form.

        That is whether a wildcard certificate for `*.base` would be good for a name of this form.
        """
        folded = f".{base}".casefold()
        if self._literals and not self.text.endswith("*"):
            ending = self._literals[-1]
            if not folded.endswith(ending) and not ending.endswith(folded):
                return False
        return self._accepts((None, *folded[1:].split(".")))

    def _accepts(self, labels: Iterable[str | None]) -> bool:
        """Follow all paths through the pattern at once; a label of None may be any label."""
        reached = {0}
        for label in labels:
            following: set[int] = set()
            for position in reached:
                if position == len(self._labels):
                    continue
                glob = self._labels[position]
                if glob is None:
                    following |= {position, position + 1}
                elif label is None or glob.matches(label):
                    following.add(position + 1)
            if not following:
                return False
            reached = following
        return len(self._labels) in reached


@dataclass(frozen=True, slots=True)
class _LabelGlob:
    """One label of a pattern: the literal parts between its stars, in order."""

    parts: tuple[str, ...]

    def matches(self, label: str) -> bool:
        first, *middle = self.parts
        if not middle:
            return label == first
        last = middle.pop()
        end = len(label) - len(last)
        if end < len(first) or not label.startswith(first) or not label.endswith(last):
            return False
        position = len(first)
        for part in middle:
            # The leftmost place is never worse than a later one: it leaves more room for what follows.
            found = label.find(part, position, end)
            if found < 0:
                return False
            position = found + len(part)
        return True


def label_pattern(text: str) -> Pattern:
    """A pattern for DNS names in A-label form. Raises InvalidPattern."""
    lowered = text.lower()
    if not text.isascii():
        raise InvalidPattern(f'"{text}" has characters outside ASCII; write internationalised labels as xn--...')
    if not _DNS_PATTERN.fullmatch(lowered):
        raise InvalidPattern(
            f'"{text}" matches no DNS name; write labels of letters, digits, "-" and "*", with single dots between them'
        )
    return _compile(text)


def value_pattern(text: str) -> Pattern:
    """A pattern for an attribute of a subject: the same form, on text with dots in it. Raises InvalidPattern."""
    if not text:
        raise InvalidPattern('an empty pattern matches nothing; write "**" for any value')
    return _compile(text)


def _compile(text: str) -> Pattern:
    if len(text) > MAXIMUM_PATTERN:
        raise InvalidPattern(f'"{text[:40]}..." is longer than {MAXIMUM_PATTERN} characters')
    folded = text.casefold()
    return Pattern(
        text, tuple(_glob(label, text) for label in folded.split(".")), tuple(filter(None, folded.split("*")))
    )


def _glob(label: str, text: str) -> _LabelGlob | None:
    if label == "**":
        return None
    if "**" in label:
        raise InvalidPattern(
            f'"{text}" has "**" beside other characters; it stands alone, between dots: "**.example.com"'
        )
    return _LabelGlob(tuple(label.split("*")))
