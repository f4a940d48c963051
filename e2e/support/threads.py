"""Runs asynchronous servers in a thread, for synchronous tests and tools."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")

_LIMIT = 10.0


@contextmanager
def in_thread(server: AbstractAsyncContextManager[T], *, name: str) -> Iterator[T]:
    """Run an asynchronous context manager in a thread with its own event loop, for the duration of the block.

    Raises:
        the error of entering it; TimeoutError if entering or leaving it takes longer than ten seconds.
    """
    entered: Future[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        leave = asyncio.Event()
        try:
            async with server as value:
                entered.set_result((value, asyncio.get_running_loop(), leave))
                await leave.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name=name, daemon=True)
    thread.start()
    value, loop, leave = entered.result(_LIMIT)
    try:
        yield value
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join(_LIMIT)
    if thread.is_alive():
        raise TimeoutError(f"{name} did not end within {_LIMIT:.0f} s")
