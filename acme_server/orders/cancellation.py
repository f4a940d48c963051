"""Cancels the orders of deactivated accounts (RFC 8555, 7.3.6), in the background and page by page.

Nothing depends on it: an order of such an account can be neither validated, finalized nor read, and expires by itself.
So a restart does not resume cancellations, and a full queue drops them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from acme_server.orders import transitions
from acme_server.problems import ProblemType, Unavailable
from acme_server.state.store import Store, Vanished
from kms.clock import Clock
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import key_of
from kms.resources.orders import ACCOUNT, ACMEOrder, StoredProblem

logger = logging.getLogger(__name__)

QUEUED = 1_000
"""Accounts whose orders wait for cancellation."""
_PAGE = 20
"""Orders of a page, which is decoded at once: up to 1 MB."""
_OPEN = "status.state!=valid,status.state!=invalid"
_TRIES = 5
_PAUSE = 2.0
_DEACTIVATED = StoredProblem(type=ProblemType.UNAUTHORIZED.value, detail="The account was deactivated.")


class Cancellation:
    """Cancels the open orders of accounts, one account after the other."""

    def __init__(self, *, orders: Store[ACMEOrder], clock: Clock, queued: int = QUEUED, pause: float = _PAUSE) -> None:
        self._orders = orders
        self._clock = clock
        self._pause = pause
        self._accounts: asyncio.Queue[tuple[str, str]] = asyncio.Queue(queued)

    def enqueue(self, account: ACMEAccount) -> None:
        """Cancel the orders of the account soon."""
        try:
            self._accounts.put_nowait(key_of(account))
        except asyncio.QueueFull:
            logger.warning("orders not cancelled; they will expire", extra={"account": account.metadata.name})

    async def idle(self) -> None:
        """Wait until the queue is empty."""
        await self._accounts.join()

    async def run(self) -> None:
        """Process the queue; never returns."""
        while True:
            namespace, account = await self._accounts.get()
            try:
                await self._cancel_orders(namespace, account)
            finally:
                self._accounts.task_done()

    async def _cancel_orders(self, namespace: str, account: str) -> None:
        for _ in range(_TRIES):
            try:
                ended = await self._end_orders(namespace, account)
            except Unavailable as error:
                logger.warning("cannot cancel orders; trying again", extra={"account": account, "error": str(error)})
                await asyncio.sleep(self._pause)
            else:
                logger.info("orders cancelled", extra={"account": account, "orders": ended})
                return
        logger.warning("orders not cancelled; they will expire", extra={"account": account})

    async def _end_orders(self, namespace: str, account: str) -> int:
        """Cancel all open orders; return how many. Raises Unavailable."""
        total = 0
        labels = f"{ACCOUNT}={account}"
        failed = partial(transitions.failed, problem=_DEACTIVATED, reason="AccountDeactivated", now=self._clock())
        while True:
            # Those that have ended are not listed again, so each page is the first one.
            orders, _ = await self._orders.page(namespace, labels=labels, fields=_OPEN, limit=_PAGE)
            ended = sum([await self._change(order, failed) for order in orders])
            total += ended
            if not ended:
                return total

    async def _change(self, order: ACMEOrder, transition: Callable[[ACMEOrder], ACMEOrder]) -> bool:
        try:
            await self._orders.change(order, transition)
        except Vanished:
            return False
        return True
