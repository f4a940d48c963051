"""Tells open pages that something has changed."""

from __future__ import annotations

import asyncio


class Changes:
    """Counts changes, and lets pages wait for the next one until `close`."""

    def __init__(self) -> None:
        self.count = 0
        self.closed = False
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Note a change."""
        self.count += 1
        self._wake()

    def close(self) -> None:
        """End all waiting, for good."""
        self.closed = True
        self._wake()

    async def wait(self, known: int, *, seconds: float) -> int:
        """The count, once it is another one than `known`, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while self.count == known and not self.closed:
                    await self._next.wait()
        except TimeoutError:
            return self.count
        return self.count

    def _wake(self) -> None:
        waiting, self._next = self._next, asyncio.Event()
        waiting.set()
