"""Waiting for something to become true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

PATIENCE = 4.0
"""Limits say how long an idle machine may take at most; one that has much to do gets a multiple of that."""


def deadline_in(seconds: float) -> float:
    """When a wait of so many seconds on an idle machine is over here, as time.monotonic() tells it."""
    return time.monotonic() + seconds * PATIENCE


async def until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Return as soon as `condition()` is true; fail after `seconds` (of an idle machine)."""
    deadline = deadline_in(seconds)
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.002)


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, object]) -> AsyncIterator[asyncio.Task[object]]:
    """Run `work` beside the test, and cancel it at the end; what it dies of beforehand is raised."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
