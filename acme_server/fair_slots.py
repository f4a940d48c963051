"""Slots that tenants share: none gets more than its share, and those who wait take turns."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple


class Holder(NamedTuple):
    """Who uses a slot: an account, and the namespace of its profile."""

    namespace: str
    account: str


class FairSlots:
    """`count` slots, of which one namespace holds at most `by_namespace`, and one account `by_account`.

    A free slot goes to the next namespace in turn, and there to the next account in turn. So a namespace or account
    with thousands of waiters delays others by one turn.
    """

    def __init__(self, count: int, *, by_namespace: int, by_account: int) -> None:
        self._free = count
        self._by_namespace = by_namespace
        self._by_account = by_account
        self._held: Counter[str | Holder] = Counter()
        self._waiting: OrderedDict[str, OrderedDict[Holder, deque[asyncio.Future[None]]]] = OrderedDict()

    @asynccontextmanager
    async def hold(self, holder: Holder) -> AsyncIterator[None]:
        """Wait for a slot, and hold it."""
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        accounts = self._waiting.setdefault(holder.namespace, OrderedDict())
        accounts.setdefault(holder, deque()).append(granted)
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._forget(holder, granted)
            else:
                self._release(holder)
            raise
        try:
            yield
        finally:
            self._release(holder)

    def _release(self, holder: Holder) -> None:
        self._free += 1
        for key in holder, holder.namespace:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
        self._grant()

    def _grant(self) -> None:
        """Give free slots to those who wait and have not used up their share."""
        while self._free and (holder := self._next_holder()) is not None:
            granted = self._waiting[holder.namespace][holder].popleft()
            self._tidy(holder)
            if granted.done():  # cancelled meanwhile
                continue
            self._free -= 1
            self._held[holder] += 1
            self._held[holder.namespace] += 1
            granted.set_result(None)

    def _next_holder(self) -> Holder | None:
        """The next one in turn, which then goes to the end of the line; None: nobody may have a slot."""
        for namespace, accounts in self._waiting.items():
            if self._held[namespace] < self._by_namespace:
                for holder in accounts:
                    if self._held[holder] < self._by_account:
                        self._waiting.move_to_end(namespace)
                        accounts.move_to_end(holder)
                        return holder
        return None

    def _forget(self, holder: Holder, granted: asyncio.Future[None]) -> None:
        """Remove a waiter that was cancelled, unless it was passed over already."""
        accounts = self._waiting.get(holder.namespace)
        if accounts is not None and granted in accounts.get(holder, ()):
            accounts[holder].remove(granted)
            self._tidy(holder)

    def _tidy(self, holder: Holder) -> None:
        accounts = self._waiting[holder.namespace]
        if not accounts[holder]:
            del accounts[holder]
        if not accounts:
            del self._waiting[holder.namespace]
