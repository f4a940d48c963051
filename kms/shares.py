"""Shares of what all use. Pure."""

from __future__ import annotations

import math

RESERVE = 0.1
"""By which share of a limit renewals and revocations may exceed it."""


HALF = 0.5
"""The share where none is configured: two that are greedy leave a quarter, and there is always room for one more."""


def share_of(whole: int, others: int, share: float) -> int:
    """What one of several may use: a share (0 to 1) of what the others leave of the whole."""
    return math.ceil(max(0, whole - others) * share)


def with_reserve(limit: int, reserve: float = RESERVE) -> int:
    """What may be used where it must not wait: a little more than others."""
    return limit + math.ceil(limit * reserve)
