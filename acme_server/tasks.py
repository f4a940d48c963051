"""Work beside the requests: tasks that run as long as the server, and threads for what would block the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

P = TypeVar("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]
"""Starts something that runs until it is cancelled."""


class BackgroundTasks:
    """Starts, supervises and stops tasks."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, works: Mapping[str, Work]) -> None:
        """Start each of `works`. Their names appear in the log."""
        self._tasks += [asyncio.create_task(supervise(name, work), name=name) for name, work in works.items()]

    async def stop(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


async def run_together(*works: Work) -> None:
    """Run all `works` at the same time, until they have ended. If one fails, cancel the others and raise its error."""
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work())


async def supervise(name: str, work: Work, *, pause: float = 1.0, longest_pause: float = 30.0) -> None:
    """Run `work`. If it fails, log the error and run it again after a pause that doubles with each failure."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("background task failed", extra={"task": name, "retry_in_seconds": pause})
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest_pause)
        else:
            return


async def in_thread_if_large(work: Callable[[P], R], argument: P, *, size: int, limit: int = 2048) -> R:
    """Return `work(argument)`, computed in a thread if `size` exceeds `limit`. Raises what `work` raises.

    `size` is the octets or characters that a client sent. Reading 2048 of them takes less than 10 ms; the worst input,
    hundreds of internationalised labels, takes tens of milliseconds. A thread costs 100 us.
    """
    return work(argument) if size <= limit else await asyncio.to_thread(work, argument)
