"""A story: what happened in order of time, how things are now, and what would help."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence, and when it happened; None: it is a fact without a time."""

    text: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """`title` names the object, `now` says how it is at this moment, `remedies` are commands to paste.

    `is_well` says whether the answer is good: nothing was refused, has failed or has ended.
    """

    title: str
    lines: tuple[Line, ...]
    now: str
    is_well: bool
    remedies: tuple[str, ...] = ()


def in_order(lines: Iterable[Line]) -> tuple[Line, ...]:
    """The lines by time; one without a time stays behind the line that it follows."""
    groups: list[list[Line]] = []
    for line in lines:
        if line.at is not None or not groups:
            groups.append([line])
        else:
            groups[-1].append(line)
    groups.sort(key=lambda group: group[0].at.timestamp() if group[0].at is not None else 0)
    return tuple(line for group in groups for line in group)


def told(story: Story) -> Iterator[str]:
    """The story as lines of text."""
    yield story.title
    for line in story.lines:
        when = clock_time(line.at) if line.at is not None else " " * 20
        yield f"  {when}  {line.text}"
    yield f"  {'now':<20}  {story.now}"
    for command in story.remedies:
        yield f"  {'to help':<20}  {command}"


def clock_time(moment: datetime) -> str:
    """`2026-11-30T12:00:00Z`, which is 20 characters long."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
