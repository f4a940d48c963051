"""The definition of a target, and its check."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

BUDGET = 0.05
"""CPU seconds that one input may take."""
_TRIES = 3


class TooSlow(AssertionError):
    """An input that would block the event loop for too long."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parser: `read` accepts any bytes and may only raise `refusals`.

    `longest` is the maximum size of an input in bytes; callers reject larger ones before they parse them.
    """

    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    longest: int = 64 * 1024


def check(target: Target, data: bytes, *, budget: float = BUDGET) -> None:
    """Check that the target handles the input correctly. Raises TooSlow, or the unexpected exception of the target.

    The time is the best of three CPU times of the thread, so that other processes do not matter.
    """
    taken = seconds(target, data)
    for _ in range(_TRIES - 1):
        if taken <= budget:
            return
        taken = min(taken, seconds(target, data))
    if taken > budget:
        raise TooSlow(f"{len(data)} bytes took {taken * 1000:.0f} ms of CPU, {budget * 1000:.0f} are allowed")


def seconds(target: Target, data: bytes) -> float:
    """The CPU seconds that one input takes."""
    data = data[: target.longest]
    started = time.thread_time()
    with suppress(*target.refusals):
        target.read(data)
    return time.thread_time() - started
