"""An event loop that knows for how long it was kept busy, in CPU: what else the machine does does not count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")


class MeasuredLoop(asyncio.SelectorEventLoop):
    """Remembers the longest that one callback, or one step of a task, took of the loop's thread."""

    longest = 0.0
    """Seconds."""

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As always, with a look at the clock before and after."""
        return super().call_soon(self._measured, callback, args, context=context)

    def _measured(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        started = time.thread_time()
        try:
            callback(*args)
        finally:
            self.longest = max(self.longest, time.thread_time() - started)
