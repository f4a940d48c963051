"""Durations in the form of Go and Kubernetes: `2160h`, `1h30m`, `0s`."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds"}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(text: str) -> timedelta:
    """The duration that `text` stands for.

    Raises ValueError with a message for people where `text` is not a sequence of numbers with the units h, m, s or ms.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; write hours, minutes and seconds as in 2160h, 1h30m or 45s")
    try:
        return sum((timedelta(**{_UNITS[unit]: float(number)}) for number, unit in _PART.findall(text)), timedelta(0))
    except OverflowError:
        raise ValueError(f"{text!r} is longer than any duration can be") from None


def format_duration(duration: timedelta) -> str:
    """The shortest spelling in whole hours, minutes and seconds: `720h`, `1h30m`, `0s`."""
    seconds = int(duration.total_seconds())
    parts = ((seconds // 3600, "h"), (seconds % 3600 // 60, "m"), (seconds % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"
