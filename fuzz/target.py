"""What a target is, and what is asked of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

BUDGET = 0.05
"""Seconds of CPU that one input may take (SEC41)."""
_TRIES = 3


class TooSlow(AssertionError):
    """An input that keeps the event loop from everybody else."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parser: `read` is called with bytes of any kind and may raise `refusals`, nothing else.

    `longest` is how long an input gets that far; what is longer is refused before it is read.
    """

    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    longest: int = 64 * 1024


def check(target: Target, data: bytes, *, budget: float = BUDGET) -> None:
    """Hold the target to its contract. Raises TooSlow, or whatever it must not have raised.

    The time is that of the thread's CPU, and the best of three: what else the machine does is nobody's fault here.
    """
    taken = seconds(target, data)
    for _ in range(_TRIES - 1):
        if taken <= budget:
            return
        taken = min(taken, seconds(target, data))
    if taken > budget:
        raise TooSlow(f"{len(data)} bytes took {taken * 1000:.0f} ms of CPU, {budget * 1000:.0f} are allowed")


def seconds(target: Target, data: bytes) -> float:
    """The CPU that one input takes."""
    data = data[: target.longest]
    started = time.thread_time()
    with suppress(*target.refusals):
        target.read(data)
    return time.thread_time() - started
