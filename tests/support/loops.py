"""An event loop that measures the CPU time of its callbacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")


class MeasuredLoop(asyncio.SelectorEventLoop):
    """Measures the longest CPU time of a callback or of one step of a task."""

    longest = 0.0
    """Seconds."""

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Schedule a callback and measure it."""
        return super().call_soon(self._measured, callback, args, context=context)

    def _measured(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        started = time.thread_time()
        try:
            callback(*args)
        finally:
            self.longest = max(self.longest, time.thread_time() - started)
