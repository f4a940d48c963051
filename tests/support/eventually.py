"""Wait for a condition, from asynchronous and from blocking tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

PATIENCE = 4.0
"""Limits are meant for an idle machine; a busy one gets this multiple of them."""


def deadline_in(seconds: float) -> float:
    """The deadline, as time.monotonic(), of a wait that takes at most `seconds` on an idle machine."""
    return time.monotonic() + seconds * PATIENCE


async def until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Return as soon as `condition()` is true; fail after `seconds` (of an idle machine)."""
    for _ in _attempts(seconds):
        if condition():
            return
        await asyncio.sleep(0.002)


async def hurried(seconds: float) -> None:
    """Sleep as asked, but no longer than five milliseconds."""
    await asyncio.sleep(min(seconds, 0.005))


async def becomes(condition: Callable[[], Awaitable[object]], *, seconds: float = 30.0) -> None:
    """Like `until`, for an asynchronous condition."""
    for _ in _attempts(seconds):
        if await condition():
            return
        await asyncio.sleep(0.1)


def eventually(condition: Callable[[], object], *, seconds: float = 15.0, why: Callable[[], object] = str) -> None:
    """Like `until`, for blocking tests; the failure says `why()`."""
    for _ in _attempts(seconds, why):
        if condition():
            return
        time.sleep(0.25)  # most conditions start kubectl


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, object]) -> AsyncIterator[asyncio.Task[object]]:
    """Run `work` beside the test and cancel it at the end. An error in it is raised there."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        # What runs in it may swallow a cancellation, as wait_for does before Python 3.12.
        while not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=1)
        with suppress(asyncio.CancelledError):
            await task


def _attempts(seconds: float, why: Callable[[], object] = lambda: "condition not met in time") -> Iterator[None]:
    deadline = deadline_in(seconds)
    while True:
        yield
        assert time.monotonic() < deadline, why()
