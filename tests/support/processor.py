"""How much of the processor a call takes, by the least of several measurements.

The others hold what a test run does besides: collecting the garbage of thousands of tests, and filling caches.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def least_time(call: Callable[[], object], *, times: int = 5) -> float:
    """Seconds of this thread on the processor that one of `times` calls took, the cheapest."""
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
