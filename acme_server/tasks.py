"""Work beside the requests: tasks that run as long as the server does and are begun again when they fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

logger = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]
"""Begins something that runs until it is cancelled."""

_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class BackgroundTasks:
    """Starts, watches and ends tasks."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, works: Mapping[str, Work]) -> None:
        """Begin each of `works`; their names are for the log."""
        self._tasks += [asyncio.create_task(supervised(name, work), name=name) for name, work in works.items()]

    async def stop(self) -> None:
        """Cancel them all and wait for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


async def supervised(name: str, work: Work, *, pause: float = _PAUSE) -> None:
    """Run `work`; where it fails, tell so and run it again, after a pause that grows with each failure."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("background task failed", extra={"task": name, "again_in_seconds": pause})
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            return
