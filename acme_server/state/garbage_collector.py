"""Deletes orders, accounts and records of revocations that are no longer needed.

`acme_server.state.retention` says when that is.

One replica collects. It lists everything, remembers what is due, and deletes that slowly, each object in exactly the
version that was judged: an object that has changed since is judged again in the next run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from acme_server.metrics import Metrics
from acme_server.problems import Unavailable
from acme_server.state import retention
from acme_server.state.store import Store
from kms.clock import Clock
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError, Conflict
from kms.cluster.informer import Informer
from kms.cluster.list_all import list_all
from kms.resources.accounts import ACMEAccount
from kms.resources.durations import parse_duration
from kms.resources.kinds import ACCOUNTS, ORDERS, REVOCATION_RECORDS
from kms.resources.meta import Key, ObjectMeta
from kms.resources.orders import ACMEOrder
from kms.resources.profiles import CertificateProfile
from kms.resources.revocations import RevocationRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pacing:
    """`every` is the seconds between two runs, `rate` the deletions a second, `most` the deletions of each kind a run.

    `pause` is the seconds before the list is asked again for a page that failed.
    """

    every: float = 600.0
    pause: float = 5.0
    rate: float = 25.0
    most: int = 20_000


class GarbageCollector:
    """Collects in the watched namespaces (by default all) and in the release namespace, once `orders_listed` is set.

    Until this server has listed all orders it is not ready; a second list would only slow that down.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        orders: Store[ACMEOrder],
        accounts: Store[ACMEAccount],
        records: Store[RevocationRecord],
        profiles: Informer[CertificateProfile],
        namespace: str,
        namespaces: Sequence[str],
        orders_listed: asyncio.Event,
        clock: Clock,
        metrics: Metrics,
        pace: Pacing | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cluster = cluster
        self._orders = orders
        self._accounts = accounts
        self._records = records
        self._profiles = profiles
        self._namespace = namespace
        self._namespaces = tuple(namespaces) or (None,)
        self._orders_listed = orders_listed
        self._clock = clock
        self._metrics = metrics
        self._pace = pace or Pacing()
        self._sleep = sleep

    async def run(self) -> None:
        """Collect again and again; never returns."""
        await self._orders_listed.wait()
        while True:
            try:
                deleted = await self.collect()
            except ClusterError as error:
                logger.warning("garbage collection interrupted", extra={"error": str(error)})
            else:
                logger.info("garbage collected", extra=deleted)
            await self._sleep(self._pace.every)

    async def collect(self) -> dict[str, int]:
        """Delete what is due now. Returns how many of each kind. Raises ClusterError if a list fails."""
        orders, busy = await self._due_orders()
        deleted = {ORDERS.plural: await self._delete(ORDERS.plural, self._orders.remove, orders)}
        if self._retentions():
            accounts = await self._due_accounts(busy)
            deleted[ACCOUNTS.plural] = await self._delete(ACCOUNTS.plural, self._accounts.remove, accounts)
        records = await self._due_records()
        if records:
            kind = REVOCATION_RECORDS.plural
            deleted[kind] = await self._delete(kind, self._records.remove, records)
        return deleted

    async def _due_records(self) -> list[ObjectMeta]:
        """The records to delete: their certificates have ended, or the CA."""
        now = self._clock()
        listed = list_all(self._cluster, REVOCATION_RECORDS, self._namespace, pause=self._pace.pause)
        due: list[ObjectMeta] = []
        async for each in listed:
            if now > each.spec.until and len(due) < self._pace.most:
                due.append(each.metadata)
        return due

    async def _due_orders(self) -> tuple[list[ObjectMeta], set[Key]]:
        """The orders to delete, and the accounts that have other orders."""
        due: list[ObjectMeta] = []
        busy: set[Key] = set()
        now = self._clock()
        for namespace in self._namespaces:
            async for order in list_all(self._cluster, ORDERS, namespace, pause=self._pace.pause):
                until = retention.kept_until(order)
                if until is not None and now > until and len(due) < self._pace.most:
                    due.append(order.metadata)
                else:
                    busy.add((order.metadata.namespace, order.spec.account_ref.name))
        return due, busy

    async def _due_accounts(self, busy: set[Key]) -> list[ObjectMeta]:
        """The accounts to delete: those that their profile no longer retains and that have no orders."""
        retentions = self._retentions()
        now = self._clock()
        due: list[ObjectMeta] = []
        for namespace in self._namespaces:
            async for account in list_all(self._cluster, ACCOUNTS, namespace, pause=self._pace.pause):
                key = account.metadata.namespace, account.metadata.name
                retained = retentions.get((account.metadata.namespace, account.spec.profile_ref.name))
                if retention.is_abandoned(account, retention=retained, has_orders=key in busy, now=now):
                    due.append(account.metadata)
        return due[: self._pace.most]

    def _retentions(self) -> dict[Key, timedelta]:
        """How long accounts are kept, by profile. A profile without a retention keeps them forever."""
        found: dict[Key, timedelta] = {}
        for each in self._profiles.values():
            acme = each.spec.enrollment.acme
            if acme is not None and acme.account_retention is not None:
                found[each.metadata.namespace, each.metadata.name] = parse_duration(acme.account_retention)
        return found

    async def _delete(
        self, kind: str, remove: Callable[[ObjectMeta], Awaitable[bool]], due: Sequence[ObjectMeta]
    ) -> int:
        """Delete one object after the other. One that cannot be deleted does not hold up the others."""
        deleted = 0
        for metadata in due:
            try:
                existed = await remove(metadata)
            except Conflict:
                continue
            except (ClusterError, Unavailable) as error:
                self._metrics.count_deletion(kind, "failed")
                logger.warning("object cannot be deleted", extra={"object": metadata.name, "error": str(error)})
            else:
                if not existed:
                    continue
                deleted += 1
                self._metrics.count_deletion(kind, "removed")
            await self._sleep(1 / self._pace.rate)
        return deleted
