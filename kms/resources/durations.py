"""Durations in the form of Go and Kubernetes: `2160h`, `1h30m`, `0s`."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|h|m|s))+")


def parse_duration(text: str) -> timedelta:
    """The duration that `text` stands for.

    Raises ValueError with a message for people where `text` is not a sequence of numbers with the units h, m, s or ms.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; write hours, minutes and seconds as in 2160h, 1h30m or 45s")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))


def format_duration(duration: timedelta) -> str:
    """The shortest spelling in whole hours, minutes and seconds: `720h`, `1h30m`, `0s`."""
    seconds = int(duration.total_seconds())
    parts = ((seconds // 3600, "h"), (seconds % 3600 // 60, "m"), (seconds % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"
