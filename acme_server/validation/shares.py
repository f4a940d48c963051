"""Fair shares of attempts and of the queue: by namespace, then by profile, then by account.

Accounts are free where a profile needs no external account binding, so a share by account alone is none: one tenant
with a hundred accounts would get a hundred shares.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

Path = tuple[str, ...]
"""(), (namespace,), (namespace, profile) or (namespace, profile, account)."""


class Limits(NamedTuple):
    """How many there may be in all, for one namespace, for one profile, and for one account."""

    total: int
    namespace: int
    profile: int
    account: int


class QueueShares:
    """Counts what is queued, and says who may queue more."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._counts: Counter[Path] = Counter()
        self._children: Counter[Path] = Counter()

    def __len__(self) -> int:
        return self._counts[()]

    def has_room(self, leaf: Path) -> bool:
        """Whether the account (namespace, profile, account) may queue one more.

        Where the whole, a namespace or a profile has reached its limit, a part with less than an equal share of it may
        still queue more. So no limit is exceeded by more than its double.
        """
        if self._counts[leaf] >= self._limits.account:
            return False
        return all(self._has_room(leaf[:depth], leaf[: depth + 1]) for depth in range(len(leaf)))

    def _has_room(self, whole: Path, part: Path) -> bool:
        limit = self._limits[len(whole)]
        if self._counts[whole] < limit:
            return True
        parts = self._children[whole] + (self._counts[part] == 0)
        return self._counts[part] < limit // parts

    def add(self, leaf: Path) -> None:
        """Count one more of the account."""
        for depth in range(len(leaf) + 1):
            path = leaf[:depth]
            self._counts[path] += 1
            if self._counts[path] == 1 and path:
                self._children[path[:-1]] += 1

    def remove(self, leaf: Path) -> None:
        """Count one less of the account."""
        for depth in range(len(leaf), -1, -1):
            path = leaf[:depth]
            self._counts[path] -= 1
            if not self._counts[path]:
                del self._counts[path]
                self._children.pop(path, None)
                if path:
                    self._children[path[:-1]] -= 1


class _Waiting:
    """Who waits for a slot: turns among the parts, or, at an account, those who came first."""

    def __init__(self) -> None:
        self.parts: dict[str, _Waiting] = {}
        self.futures: deque[asyncio.Future[None]] = deque()

    def is_empty(self) -> bool:
        return not self.parts and not self.futures


class FairSlots:
    """Slots for attempts. A free slot goes to namespaces in turn, within one to its profiles, then to its accounts."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._used: Counter[Path] = Counter()
        self._waiting = _Waiting()

    @asynccontextmanager
    async def slot(self, leaf: Path) -> AsyncIterator[None]:
        """Wait for a slot for the account (namespace, profile, account), and hold it."""
        await self._acquire(leaf)
        try:
            yield
        finally:
            self._count(leaf, -1)
            self._hand_out()

    async def _acquire(self, leaf: Path) -> None:
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
                self._count(leaf, -1)
                self._hand_out()
            raise

    def _hand_out(self) -> None:
        while (leaf := self._next(self._waiting, ())) is not None:
            self._count(leaf, 1)

    def _next(self, node: _Waiting, path: Path) -> Path | None:
        """Give the next slot below `node` to whose turn it is; returns the account, or None if none may have one."""
        if self._used[path] >= self._limits[len(path)]:
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
            self._used[path] += change
            if not self._used[path]:
                del self._used[path]
