"""Slots that tenants share: no part gets more than its share, and those who wait take turns.

Accounts are free where a profile needs no external account binding, so a share by account alone is none: one tenant
with a hundred accounts would get a hundred shares. So shares are those of a namespace first. Where clients of
several namespaces share a profile, each of these, a tenant, has a share too: it may open any number of accounts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

Path = tuple[str, ...]
"""An account: (namespace, tenant, account) or (namespace, profile, tenant, account).

A shorter path is what accounts have in common.
"""


class _Waiting:
    """Who waits for a slot: turns among the parts, or, at an account, those who came first."""

    def __init__(self) -> None:
        self.parts: dict[str, _Waiting] = {}
        self.futures: deque[asyncio.Future[None]] = deque()

    def is_empty(self) -> bool:
        return not self.parts and not self.futures


class FairSlots:
    """Slots: `limits[0]` in all, and at most `limits[n]` for each path of length n.

    A free slot goes to namespaces in turn, within one to its parts in turn. So a namespace or account with thousands
    of waiters delays others by one turn.
    """

    def __init__(self, limits: Sequence[int]) -> None:
        self._limits = limits
        self._used: dict[Path, int] = {}
        self._waiting = _Waiting()

    @asynccontextmanager
    async def hold(self, leaf: Path) -> AsyncIterator[None]:
        """Wait for a slot for the account at this path, and hold it."""
        await self.acquire(leaf)
        try:
            yield
        finally:
            self.release(leaf)

    async def acquire(self, leaf: Path) -> None:
        """Wait for a slot for the account at this path, one shorter than `limits`."""
        if self._waiting.is_empty() and self._take_free(leaf):
            return
        node = self._waiting
        for each in leaf:
            node = node.parts.setdefault(each, _Waiting())
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        node.futures.append(future)
        self._hand_out()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(leaf)
            raise

    def release(self, leaf: Path) -> None:
        """Give a slot of the account back."""
        self._count(leaf, -1)
        self._hand_out()

    def _take_free(self, leaf: Path) -> bool:
        for depth, limit in enumerate(self._limits):
            if self._used.get(leaf[:depth], 0) >= limit:
                return False
        self._count(leaf, 1)
        return True

    def _hand_out(self) -> None:
        while (leaf := self._next(self._waiting, ())) is not None:
            self._count(leaf, 1)

    def _next(self, node: _Waiting, path: Path) -> Path | None:
        """Give the next slot below `node` to whose turn it is; returns the account, or None if none may have one."""
        if self._used.get(path, 0) >= self._limits[len(path)]:
            return None
        while node.futures:
            future = node.futures.popleft()
            if not future.done():
                future.set_result(None)
                return path
        while node.parts:
            for name, part in node.parts.items():
                leaf = self._next(part, (*path, name))
                if leaf is not None or part.is_empty():
                    break
            else:
                return None  # all parts are at their limits
            del node.parts[name]
            if not part.is_empty():
                node.parts[name] = part  # at the end: the others come first
            if leaf is not None:
                return leaf
        return None

    def _count(self, leaf: Path, change: int) -> None:
        for depth in range(len(leaf) + 1):
            path = leaf[:depth]
            used = self._used.get(path, 0) + change
            if used:
                self._used[path] = used
            else:
                del self._used[path]
