"""How much of the processor a call takes, by the least of several measurements and in seconds of one certain machine.

The other measurements hold what a test run does besides: collecting the garbage of thousands of tests, and filling
caches. Machines and interpreters differ by a factor of four, so each result is compared with a known piece of work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

KNOWN_WORK = 0.000_8
"""Seconds that `known_work` takes on the machine of the bounds, one core of a server with Debian's CPython 3.11."""


def known_work() -> None:
    """Do what most of the measured code does: calls, short strings, dictionaries."""
    counts: dict[str, int] = {}
    for number in range(1_500):
        name = f"a{number % 97}.b"
        counts[name] = counts.get(name, 0) + len(name.split("."))


def slowness() -> float:
    """How many times slower than the machine of the bounds this one is just now, and never below 1."""
    return max(1.0, _least(known_work, 4) / KNOWN_WORK)


def least_time(call: Callable[[], object], *, times: int = 5) -> float:
    """Seconds of this thread on the processor that one of `times` calls took, the cheapest.

    They are seconds of the machine of the bounds: a slower one is allowed for.
    """
    before = slowness()
    taken = _least(call, times)
    return taken / max(before, slowness())


def _least(call: Callable[[], object], times: int) -> float:
    taken = []
    tracer = sys.gettrace()
    sys.settrace(None)  # what measures coverage costs ten times what it measures
    try:
        for _ in range(times):
            begun = time.thread_time()
            call()
            taken.append(time.thread_time() - begun)
    finally:
        sys.settrace(tracer)
    return min(taken)
