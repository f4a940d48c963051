"""Time and randomness, passed as arguments so that tests control them."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Returns the time: an aware datetime in UTC."""

Entropy = Callable[[int], bytes]
"""Returns that many unpredictable bytes."""


def system_clock() -> datetime:
    """The current time in UTC, to the second, as the API server stores it."""
    return _second(int(time.time()))


@functools.lru_cache(maxsize=1)
def _second(timestamp: int) -> datetime:
    """The time, cached: a request asks for it a dozen times, mostly within the same second."""
    return datetime.fromtimestamp(timestamp, UTC)


def system_entropy(count: int) -> bytes:
    """`count` bytes from the operating system's generator."""
    return secrets.token_bytes(count)


def in_utc(moment: datetime) -> datetime:
    """The aware moment in UTC. A stored time may lie beyond the last (or first) that there is, which it then is."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if moment.year > 1 else datetime.min.replace(tzinfo=UTC)


def later(moment: datetime, period: timedelta) -> datetime:
    """The moment `period` after this one, or the last that there is."""
    try:
        return moment + period
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)
