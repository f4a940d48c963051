"""Connections that say nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def silent_connections(port: int, number: int, *, source: str = "127.0.0.2") -> AsyncIterator[Callable[[], int]]:
    """Open them from one address, one after the other, and yield what counts those that the server has not closed."""
    opened = [await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0)) for _ in range(number)]
    try:
        yield lambda: sum(not reader.at_eof() and reader.exception() is None for reader, _ in opened)
    finally:
        for _, writer in opened:
            writer.transport.abort()
