"""Removes what is not needed any more: orders and, where a profile says so, accounts (rules.retention says when).

One replica sweeps. It goes through everything, remembers only what is due, and deletes that slowly, each object in
exactly the version that was judged: whatever has changed since is judged again the next time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from acme_server.measures import Metrics
from acme_server.profiles import Source
from acme_server.state import retention
from acme_server.state.cache import Key
from kms.clock import Clock
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError, Conflict, NotFound
from kms.cluster.list_all import list_all
from kms.resources.durations import parse_duration
from kms.resources.kinds import ACCOUNTS, ORDERS, Kind
from kms.resources.meta import ObjectMeta
from kms.resources.orders import ACMEOrder
from kms.resources.profiles import CertificateProfile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pacing:
    """`every` is the seconds between two sweeps, `rate` the deletions a second, `most` those of one sweep.

    `pause` is the seconds before a page that did not come is asked for again.
    """

    every: float = 600.0
    pause: float = 5.0
    rate: float = 25.0
    most: int = 20_000


class _Due(NamedTuple):
    """What is to be deleted, and in which version it was judged."""

    kind: Kind[Any]
    metadata: ObjectMeta


class GarbageCollector:
    """Sweeps the namespaces that are watched (none named: all), once `known` is set.

    That is when this server knows all orders: until then it is not ready, and a list of its own would be in its way.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        profiles: Source[CertificateProfile],
        namespaces: Sequence[str],
        known: asyncio.Event,
        clock: Clock,
        metrics: Metrics,
        pace: Pacing | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cluster = cluster
        self._profiles = profiles
        self._namespaces = tuple(namespaces) or (None,)
        self._known = known
        self._clock = clock
        self._metrics = metrics
        self._pace = pace or Pacing()
        self._sleep = sleep

    async def run(self) -> None:
        """Sweep again and again; never returns."""
        await self._known.wait()
        while True:
            try:
                removed = await self.sweep()
            except ClusterError as error:
                logger.warning("sweep broken off", extra={"error": str(error)})
            else:
                logger.info("swept", extra=removed)
            await self._sleep(self._pace.every)

    async def sweep(self) -> dict[str, int]:
        """Delete what is due now; how many of each kind are gone. Raises ClusterError where nothing can be listed."""
        orders, busy = await self._due_orders()
        removed = {ORDERS.plural: await self._delete(orders)}
        if self._retentions():
            removed[ACCOUNTS.plural] = await self._delete(await self._due_accounts(busy))
        return removed

    async def _due_orders(self) -> tuple[list[_Due], set[Key]]:
        """The orders that may go, and the accounts that have orders which stay."""
        due: list[_Due] = []
        busy: set[Key] = set()
        now = self._clock()
        for namespace in self._namespaces:
            async for order in list_all(self._cluster, ORDERS, namespace, pause=self._pace.pause):
                until = retention.kept_until(order)
                if until is not None and now > until and len(due) < self._pace.most:
                    due.append(_Due(ORDERS, order.metadata))
                else:
                    busy.add((order.metadata.namespace, order.spec.account_ref.name))
        return due, busy

    async def _due_accounts(self, busy: set[Key]) -> list[_Due]:
        retentions = self._retentions()
        now = self._clock()
        due: list[_Due] = []
        for namespace in self._namespaces:
            async for account in list_all(self._cluster, ACCOUNTS, namespace, pause=self._pace.pause):
                key = account.metadata.namespace, account.metadata.name
                retained = retentions.get((account.metadata.namespace, account.spec.profile_ref.name))
                if retention.is_abandoned(account, retention=retained, has_orders=key in busy, now=now):
                    due.append(_Due(ACCOUNTS, account.metadata))
        return due[: self._pace.most]

    def _retentions(self) -> dict[Key, timedelta]:
        """How long accounts are kept, by profile; profiles that say nothing keep them for ever."""
        found: dict[Key, timedelta] = {}
        for each in self._profiles.values():
            acme = each.spec.enrollment.acme
            if acme is not None and acme.account_retention is not None:
                found[each.metadata.namespace, each.metadata.name] = parse_duration(acme.account_retention)
        return found

    async def _delete(self, due: Sequence[_Due]) -> int:
        """Delete one after the other; what cannot be deleted does not keep the others."""
        removed = 0
        for kind, meta in due:
            try:
                await self._cluster.delete(
                    kind, meta.namespace, meta.name, uid=meta.uid, resource_version=meta.resource_version
                )
                removed += 1
            except (Conflict, NotFound):
                continue
            except ClusterError as error:
                self._metrics.swept(kind.plural, "failed")
                logger.warning("object cannot be removed", extra={"object": meta.name, "error": str(error)})
            else:
                self._metrics.swept(kind.plural, "removed")
            await self._sleep(1 / self._pace.rate)
        return removed


class UnfinishedOrders:
    """Orders in processing that nobody looks at: their server may have died. A listener of the order store."""

    def __init__(self, *, patience: float = 30.0, every: float = 10.0) -> None:
        """In seconds: `patience` is how long others are given to finish an order, `every` how often it looks."""
        self._patience = patience
        self._every = every
        self._since: dict[Key, float] = {}

    def seen(self, order: ACMEOrder, deleted: bool) -> None:  # noqa: FBT001 - the signature of the store's listeners
        """Remember since when the order has been in processing."""
        key = order.metadata.namespace, order.metadata.name
        if deleted or order.status.state != "processing":
            self._since.pop(key, None)
        else:
            self._since.setdefault(key, asyncio.get_running_loop().time())

    def missed(self) -> None:
        """Changes may have been missed; who looks at an order sees how it is."""

    def surveyed(self) -> None:
        """Every order has been seen."""

    async def run(self, finish: Callable[[Key], Awaitable[None]]) -> None:
        """Have `finish` go on with what has been in processing for too long; never returns."""
        while True:
            await asyncio.sleep(self._every)
            now = asyncio.get_running_loop().time()
            for key in [key for key, since in self._since.items() if now - since > self._patience]:
                await finish(key)
