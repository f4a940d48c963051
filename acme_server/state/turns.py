"""Turns of accounts: a request that makes the API server look through many objects waits for others like it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from kms.resources.meta import Key

AT_ONCE = 4


class Turns:
    """Runs one request of an account at a time, and `at_once` of all accounts."""

    def __init__(self, *, at_once: int = AT_ONCE) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, account: Key) -> AsyncIterator[None]:
        """Wait until it is the turn of the account with that key."""
        async with self._locks.setdefault(account, asyncio.Lock()), self._slots:
            yield
