"""Patterns of policies: `*` is any run of characters inside one label, `**` is one or more whole labels.

A pattern matches a whole value and ignores case; all characters but `*` match themselves. There is no backtracking:
every run of `**` becomes a single one, and the labels between two of them are looked for once, from left to right.
kms.pki.pattern_sets compares a value with many patterns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

MAXIMUM_PATTERN = 253
_LABELS = 127
"""Labels of the longest DNS name; a value of a subject is shorter."""
_DNS_PATTERN = re.compile(r"[a-z0-9*-]+(?:\.[a-z0-9*-]+)*")
_MISPLACED = re.compile(r"[^.]\*\*|\*\*[^.]")


class InvalidPattern(ValueError):
    """Text that is not a pattern; the message tells people what to write instead."""


class Pattern(NamedTuple):
    """A compiled pattern. Make one with `label_pattern` or `value_pattern`.

    `tail` are the literal labels at the end, in lower case: "example.com" of `web*.example.com`, and all of a literal
    pattern; None: the last label has a star. `form` is what stands before the tail; None: nothing.
    PatternSet compares patterns with values.
    """

    text: str
    tail: str | None
    form: _Form | None


class _Glob:
    """One label of a pattern: literal text, or the literal parts between its stars, in order."""

    __slots__ = ("_first", "_last", "_middle", "_shortest", "cost", "literal")

    def __init__(self, text: str) -> None:
        self._first, *self._middle = text.split("*")
        self._last = self._middle.pop() if self._middle else ""
        self._shortest = len(self._first) + len(self._last)
        self.literal = text if "*" not in text else None
        self.cost = 1 if text == "*" else 2 if self.literal is not None else 4 + 3 * len(self._middle)

    def matches(self, label: str) -> bool:
        """Whether the label has this form; only for one with stars."""
        if len(label) < self._shortest or not (label.startswith(self._first) and label.endswith(self._last)):
            return False
        position, end = len(self._first), len(label) - len(self._last)
        for part in self._middle:
            # The leftmost place is never worse than a later one: it leaves more room for what follows.
            found = label.find(part, position, end)
            if found < 0:
                return False
            position = found + len(part)
        return True


class _Form:
    """The labels of a pattern before its tail: a head, and behind the first `**` a last segment and others between.

    Segments are separated by one `**`. `cost` bounds what `accepts` takes, whatever the labels: 1 is what it takes to
    compare two texts.
    """

    __slots__ = ("_between", "_head", "_last", "_shortest", "_single", "cost")

    def __init__(self, labels: Sequence[str]) -> None:
        self._shortest = len(labels)
        head, *others = _segments(labels)
        self._head = head
        self._last = others.pop() if others else None
        self._between = others
        self._single = head[0] if len(head) == 1 and self._last is None else None
        anchored = sum(each.cost for each in (*head, *(self._last or ())))
        self.cost = 2 + anchored + sum(_cost_of_search(segment) for segment in others)

    def accepts(self, labels: Sequence[str | None]) -> bool:
        """Whether the labels have this form. A label of None may be any label."""
        count = len(labels)
        if self._single is not None:  # the usual form: web*.example.com
            return count == 1 and ((label := labels[0]) is None or self._single.matches(label))
        if self._last is None:
            return count == self._shortest and _fits(self._head, labels, 0)
        end = count - len(self._last)
        if count < self._shortest or not _fits(self._head, labels, 0) or not _fits(self._last, labels, end):
            return False
        position = len(self._head)
        for segment in self._between:
            position += 1  # the ** before it takes one label at least
            while position <= end - len(segment) and not _fits(segment, labels, position):
                position += 1
            # Here too the leftmost place is the best one.
            position += len(segment)
        return position < end


def _segments(labels: Sequence[str]) -> list[tuple[_Glob, ...]]:
    """The labels between the `**`. A run of `*` and `**` is as many `*` and one `**`: at least so many labels."""
    segments: list[list[_Glob]] = [[]]
    run = 0
    any_number = False
    for label in (*labels, None):
        if label in {"*", "**"}:
            run += 1
            any_number = any_number or label == "**"
            continue
        segments[-1] += [_ANY] * (run - any_number)
        if any_number:
            segments.append([])
        run, any_number = 0, False
        if label is not None:
            segments[-1].append(_Glob(label))
    return [tuple(each) for each in segments]


def _fits(segment: Sequence[_Glob], labels: Sequence[str | None], position: int) -> bool:
    for glob in segment:
        label = labels[position]
        if label is None or glob is _ANY:
            pass
        elif glob.literal is None:
            if not glob.matches(label):
                return False
        elif label != glob.literal:
            return False
        position += 1
    return True


def _cost_of_search(segment: Sequence[_Glob]) -> float:
    """The most that it costs to find a segment: it may fail at its last label, at every place."""
    return (_LABELS - len(segment)) * (2 + sum(each.cost for each in segment))


def label_pattern(text: str) -> Pattern:
    """A pattern for DNS names in A-label form. Raises InvalidPattern."""
    lowered = text.lower()
    if not text.isascii():
        raise InvalidPattern(f'"{text}" has characters outside ASCII; write internationalised labels as xn--...')
    if not _DNS_PATTERN.fullmatch(lowered):
        raise InvalidPattern(
            f'"{text}" matches no DNS name; write labels of letters, digits, "-" and "*", with single dots between them'
        )
    return _compile(text, lowered)


def value_pattern(text: str) -> Pattern:
    """A pattern for an attribute of a subject: the same form, on text with dots in it. Raises InvalidPattern."""
    if not text:
        raise InvalidPattern('an empty pattern matches nothing; write "**" for any value')
    return _compile(text, text.casefold())


def _compile(text: str, folded: str) -> Pattern:
    if len(text) > MAXIMUM_PATTERN:
        raise InvalidPattern(f'"{text[:40]}..." is longer than {MAXIMUM_PATTERN} characters')
    star = folded.rfind("*")
    if star < 0:
        return Pattern(text, folded, None)
    if _MISPLACED.search(folded):
        raise InvalidPattern(
            f'"{text}" has "**" beside other characters; it stands alone, between dots: "**.example.com"'
        )
    dot = folded.find(".", star)
    front, tail = (folded, None) if dot < 0 else (folded[:dot], folded[dot + 1 :])
    usual = _USUAL.get(front)
    return Pattern(text, tail, usual or _Form(front.split(".")))


_ANY = _Glob("*")
ANY_LABEL = _Form(["*"])
"""The form of `*.example.com`."""
ANY_LABELS = _Form(["**"])
"""The form of `**.example.com`."""
_USUAL: Mapping[str, _Form] = MappingProxyType({"*": ANY_LABEL, "**": ANY_LABELS})
