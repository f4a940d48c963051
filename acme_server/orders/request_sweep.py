"""Deletes requests to external CAs that no order waits for: their server died, or could not delete them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn

from acme_server.problems import Unavailable
from acme_server.state.store import Store
from kms.clock import Clock
from kms.cluster.errors import ClusterError
from kms.issuers.request_objects import RequestObjects, order_of
from kms.resources.meta import ObjectMeta
from kms.resources.orders import ACMEOrder

logger = logging.getLogger(__name__)


class RequestSweep:
    """Sweeps every `every` seconds what is older than `age`: younger requests may belong to an order being written."""

    def __init__(
        self,
        requests: Sequence[RequestObjects[Any]],
        *,
        orders: Store[ACMEOrder],
        clock: Clock,
        every: float = 60.0,
        age: timedelta = timedelta(minutes=1),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._requests = requests
        self._orders = orders
        self._clock = clock
        self._every = every
        self._age = age
        self._sleep = sleep

    async def run(self) -> NoReturn:
        """Sweep again and again."""
        while True:
            await self._sleep(self._every)
            await self.sweep()

    async def sweep(self) -> int:
        """Sweep once, and return how many requests were deleted. One that cannot be deleted stops no other."""
        deleted = 0
        for objects in self._requests:
            for metadata in [each.metadata for each in objects.values()]:
                try:
                    if await self._is_needed(metadata):
                        continue
                    await objects.delete(metadata)
                except (ClusterError, Unavailable) as error:
                    extra = {"request": metadata.name, "error": str(error)}
                    logger.warning("request cannot be deleted", extra=extra)
                else:
                    deleted += 1
        if deleted:
            logger.info("requests deleted that no order waits for", extra={"requests": deleted})
        return deleted

    async def _is_needed(self, metadata: ObjectMeta) -> bool:
        created, order = metadata.creation_timestamp, order_of(metadata)
        if order is None or created is None or self._clock() - created < self._age:
            return True
        known = self._orders.get_cached(*order)
        if known is not None and _waits_for(known, metadata):
            return True
        found = await self._orders.read_live(*order)
        return found is not None and _waits_for(found, metadata)


def _waits_for(order: ACMEOrder, metadata: ObjectMeta) -> bool:
    issuance = order.status.issuance
    return order.status.state == "processing" and issuance is not None and issuance.request == metadata.name
