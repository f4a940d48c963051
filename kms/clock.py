"""Time and randomness, handed in wherever they are needed so that a test decides what they are."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Tells the time: an aware datetime in UTC."""

Entropy = Callable[[int], bytes]
"""Draws that many bytes which nobody can predict."""


def system_clock() -> datetime:
    """The time now, in UTC, to the second: what the API server and RFC 3339 strings keep."""
    return datetime.now(UTC).replace(microsecond=0)


def system_entropy(count: int) -> bytes:
    """`count` bytes from the operating system's generator."""
    return secrets.token_bytes(count)
