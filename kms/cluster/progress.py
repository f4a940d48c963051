"""How far a watch has come, and waits until it has come further."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class Progress:
    """The resourceVersion up to which one watch has reported everything, as an integer.

    A caller waits for `patience` seconds at most. When one has waited in vain, all that wait give up with it, and the
    next ones do not wait before the watch has moved again: one that stands still costs one wait, not one a caller.
    """

    def __init__(self, *, patience: float) -> None:
        self._patience = patience
        self._version: int | None = None
        self._waiting: list[tuple[int, int, asyncio.Future[bool]]] = []
        self._numbers = itertools.count()
        self._stalled = False

    def __len__(self) -> int:
        """The callers that wait."""
        return len(self._waiting)

    def is_past(self, version: int | None) -> bool:
        """Whether the watch had come further than to that version."""
        return self._version is not None and version is not None and version < self._version

    def move(self, version: int | None) -> None:
        """The watch has come to that version, which may be lower after a restart; None: versions are no integers."""
        self._version, self._stalled = version, False
        while self._waiting and (version is None or self._waiting[0][0] <= version):
            _finish(heapq.heappop(self._waiting)[2], reached=version is not None)

    async def reach(self, version: int) -> bool:
        """Whether the watch has come to that version, or does so in time."""
        if self._version is None or self._version >= version:
            return self._version is not None
        if self._stalled:
            return False
        reached: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (version, next(self._numbers), reached))
        try:
            async with asyncio.timeout(self._patience):
                return await reached
        except TimeoutError:
            self._stalled = True
            for _, _, waiting in self._waiting:
                _finish(waiting, reached=False)
            self._waiting.clear()
            return False


def _finish(waiting: asyncio.Future[bool], *, reached: bool) -> None:
    if not waiting.done():  # its caller may have gone
        waiting.set_result(reached)
