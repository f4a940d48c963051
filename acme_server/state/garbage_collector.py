"""Deletes orders, accounts, records of revocations and chains that are no longer needed.

`acme_server.state.retention` says when that is. One replica collects. It lists everything, remembers what is due, and
deletes that slowly, each object in exactly the version that was judged: an object that has changed since is judged
again in the next run.

It also adopts objects of earlier releases: those had an owner reference, by which the cluster's garbage collector would
delete them with their profile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from acme_server.metrics import Metrics
from acme_server.problems import Unavailable
from acme_server.state import retention
from acme_server.state.certificate_chains import CertificateChains
from acme_server.state.deleted_profiles import DeletedProfiles, KeptObject, due
from acme_server.state.index import Index
from acme_server.state.needed_chains import NeededChains
from acme_server.state.store import Store
from kms.clock import Clock
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError, Conflict, NotFound
from kms.cluster.informer import Informer
from kms.cluster.list_all import list_all
from kms.resources.accounts import ACMEAccount
from kms.resources.deletions import Deletions
from kms.resources.durations import parse_duration
from kms.resources.kinds import ACCOUNTS, CERTIFICATE_CHAINS, ORDERS, PROFILES, REVOCATION_RECORDS, Kind
from kms.resources.meta import GROUP, Key, ObjectMeta, Unreadable, key_of
from kms.resources.orders import ACCOUNT, ACMEOrder
from kms.resources.profiles import CertificateProfile
from kms.resources.revocations import RevocationRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pacing:
    """`every` is the seconds between two runs, `rate` the deletions a second, `most` the deletions of each kind a run.

    `adoptions` is how many objects of earlier releases are adopted a second; `most` limits them, too. `pause` is the
    seconds before the list is asked again for a page that failed.
    """

    every: float = 600.0
    pause: float = 5.0
    rate: float = 25.0
    adoptions: float = 100.0
    most: int = 20_000


class _BusyAccounts:
    """The accounts that have orders. An order that cannot be read belongs to the account that its label names."""

    def __init__(self) -> None:
        self._accounts: set[Key] = set()
        self._unknown: set[str] = set()

    def add(self, namespace: str, account: str) -> None:
        """The account has an order."""
        self._accounts.add((namespace, account))

    def add_unreadable(self, order: Unreadable) -> None:
        """Some account has an order. Without the label, any account of the namespace may have it."""
        account = order.metadata.labels.get(ACCOUNT)
        if account is None:
            self._unknown.add(order.metadata.namespace)
        else:
            self.add(order.metadata.namespace, account)

    def has(self, account: ACMEAccount) -> bool:
        """Whether the account has, or may have, an order."""
        namespace = account.metadata.namespace
        return (namespace, account.metadata.name) in self._accounts or namespace in self._unknown


@dataclass(slots=True)
class _Run:
    """What one run has found."""

    now: datetime
    deleted_profiles: DeletedProfiles
    orders: list[ObjectMeta] = field(default_factory=list)
    accounts: list[ObjectMeta] = field(default_factory=list)
    kept_orders: list[KeptObject] = field(default_factory=list)
    kept_accounts: list[KeptObject] = field(default_factory=list)
    busy: _BusyAccounts = field(default_factory=_BusyAccounts)
    """Accounts with orders that stay."""
    needed: NeededChains = field(default_factory=NeededChains)
    """The chains to which any order refers."""

    def add_unreadable(self, order: Unreadable) -> None:
        """Keep what an order may need that cannot be read."""
        self.busy.add_unreadable(order)
        self.needed.add_unreadable(order)

    owned: list[tuple[Kind[Any], ObjectMeta]] = field(default_factory=list)
    """Objects of earlier releases."""


class GarbageCollector:
    """Collects in the watched namespaces (by default all) and in the release namespace, once `orders_listed` is set.

    Until this server has listed all orders it is not ready; a second list would only slow that down.
    `deletion_retention` is how long accounts and orders are kept after their profile was deleted.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        orders: Store[ACMEOrder],
        accounts: Store[ACMEAccount],
        records: Store[RevocationRecord],
        account_index: Index[ACMEAccount],
        chains: CertificateChains,
        profiles: Informer[CertificateProfile],
        namespace: str,
        namespaces: Sequence[str],
        deletion_retention: timedelta,
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
        self._account_index = account_index
        self._chains = chains
        self._profiles = profiles
        self._namespace = namespace
        self._namespaces = tuple(namespaces) or (None,)
        self._deletion_retention = deletion_retention
        self._orders_listed = orders_listed
        self._clock = clock
        self._metrics = metrics
        self._pace = pace or Pacing()
        self._sleep = sleep
        self._deletions = Deletions()

    def notice(self, profile: CertificateProfile, deleted: bool) -> None:  # noqa: FBT001 - the signature of informers
        """Remember when a profile was deleted; also on replicas that do not collect, because they may be next."""
        if deleted:
            self._deletions.note(key_of(profile), self._clock())

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
        while True:
            run = _Run(self._clock(), DeletedProfiles(self._may_exist, self._deletions))
            await self._judge_orders(run)
            await self._judge_accounts(run)
            if await self._adopt(run.owned) < self._pace.most:
                break  # otherwise there are more
        gone = await run.deleted_profiles.settle(
            self._annotate, is_deleted=self._is_deleted, retention=self._deletion_retention, now=run.now
        )
        orders, accounts = (*run.orders, *due(run.kept_orders, gone)), (*run.accounts, *due(run.kept_accounts, gone))
        deleted = {ORDERS.plural: await self._delete(ORDERS.plural, self._orders.remove, orders)}
        if accounts or self._account_retentions():
            deleted[ACCOUNTS.plural] = await self._delete(ACCOUNTS.plural, self._accounts.remove, accounts)
        records = await self._due_records(run.now)
        if records:
            kind = REVOCATION_RECORDS.plural
            deleted[kind] = await self._delete(kind, self._records.remove, records)
        chains = [each.metadata for each in self._chains.values() if run.needed.is_due(each, now=run.now)]
        if chains:
            kind = CERTIFICATE_CHAINS.plural
            deleted[kind] = await self._delete(kind, self._chains.remove, chains[: self._pace.most])
        return deleted

    async def _judge_orders(self, run: _Run) -> None:
        for namespace in self._namespaces:
            async for order in list_all(
                self._cluster, ORDERS, namespace, on_unreadable=run.add_unreadable, pause=self._pace.pause
            ):
                metadata = order.metadata
                self._note_owner(run, ORDERS, metadata)
                run.needed.add(order)
                is_gone = run.deleted_profiles.see(ORDERS, order)
                until = retention.kept_until(order)
                if until is not None and run.now > until and len(run.orders) < self._pace.most:
                    run.orders.append(metadata)
                    continue
                run.busy.add(metadata.namespace, order.spec.account_ref.name)
                # A revoked certificate stays in the inventory until its end, whatever became of its profile.
                if is_gone and order.status.revocation is None and len(run.kept_orders) < self._pace.most:
                    run.kept_orders.append(KeptObject((metadata.namespace, order.spec.profile_ref.name), metadata))

    async def _judge_accounts(self, run: _Run) -> None:
        retentions = self._account_retentions()
        for namespace in self._namespaces:
            async for account in list_all(
                self._cluster, ACCOUNTS, namespace, on_unreadable=_keep, pause=self._pace.pause
            ):
                metadata, profile = account.metadata, account.spec.profile_ref.name
                self._note_owner(run, ACCOUNTS, metadata)
                is_gone = run.deleted_profiles.see(ACCOUNTS, account)
                retained = retentions.get((metadata.namespace, profile))
                abandoned = retention.is_abandoned(
                    account, retention=retained, has_orders=run.busy.has(account), now=run.now
                )
                if (abandoned or self._is_alias_of_nothing(account)) and len(run.accounts) < self._pace.most:
                    run.accounts.append(metadata)
                elif is_gone and len(run.kept_accounts) < self._pace.most:
                    run.kept_accounts.append(KeptObject((metadata.namespace, profile), metadata))

    def _is_alias_of_nothing(self, account: ACMEAccount) -> bool:
        alias_of = account.spec.alias_of
        if alias_of is None or not self._account_index.complete:
            return False
        return (account.metadata.namespace, alias_of.name) not in self._account_index

    async def _due_records(self, now: datetime) -> list[ObjectMeta]:
        """The records to delete: their certificates have ended, or the CA."""
        listed = list_all(
            self._cluster, REVOCATION_RECORDS, self._namespace, on_unreadable=_keep, pause=self._pace.pause
        )
        found: list[ObjectMeta] = []
        async for each in listed:
            if now > each.spec.until and len(found) < self._pace.most:
                found.append(each.metadata)
        return found

    def _account_retentions(self) -> dict[Key, timedelta]:
        """How long accounts are kept, by profile. A profile without a retention keeps them forever."""
        found: dict[Key, timedelta] = {}
        for each in self._profiles.values():
            acme = each.spec.enrollment.acme
            if acme is not None and (retained := acme.retention_of_accounts) is not None:
                try:
                    found[each.metadata.namespace, each.metadata.name] = parse_duration(retained)
                except ValueError as error:
                    # The schema refuses it; an object that is older than the schema keeps its accounts.
                    extra = {"profile": f"{each.metadata.namespace}/{each.metadata.name}", "error": str(error)}
                    logger.warning("accountRetention is invalid; accounts are kept", extra=extra)
        return found

    def _may_exist(self, profile: Key) -> bool:
        return not self._profiles.is_current() or self._profiles.get(*profile) is not None

    async def _is_deleted(self, profile: Key) -> bool:
        """Whether the API server says that there is no such profile. One that cannot be read exists."""
        try:
            await self._cluster.get(PROFILES, *profile)
        except NotFound:
            return True
        except ClusterError as error:
            logger.warning("profile cannot be read", extra={"profile": "/".join(profile), "error": str(error)})
        return False

    def _note_owner(self, run: _Run, kind: Kind[Any], metadata: ObjectMeta) -> None:
        ours = any(each.api_version.startswith(f"{GROUP}/") for each in metadata.owner_references)
        if ours and len(run.owned) < self._pace.most:
            run.owned.append((kind, metadata))

    async def _adopt(self, owned: Sequence[tuple[Kind[Any], ObjectMeta]]) -> int:
        """Remove our owner references from objects of earlier releases. Returns from how many."""
        adopted = 0
        for kind, metadata in owned:
            kept = [each for each in metadata.owner_references if not each.api_version.startswith(f"{GROUP}/")]
            changes = {"ownerReferences": msgspec.to_builtins(kept) if kept else None}
            adopted += await self._patch(kind, metadata, changes)
            await self._sleep(1 / self._pace.adoptions)
        if owned:
            extra = {"adopted": adopted, "failed": len(owned) - adopted}
            logger.info("objects of an earlier release adopted", extra=extra)
        return adopted

    async def _annotate(self, kind: Kind[Any], metadata: ObjectMeta, annotations: dict[str, str | None]) -> None:
        await self._patch(kind, metadata, {"annotations": annotations})

    async def _patch(self, kind: Kind[Any], metadata: ObjectMeta, changes: Mapping[str, Any]) -> bool:
        """Change metadata of the object, and return whether that worked. The next run tries again."""
        try:
            await self._cluster.patch_metadata(kind, metadata, changes)
        except (Conflict, NotFound):
            return False
        except ClusterError as error:
            logger.warning("object cannot be changed", extra={"object": metadata.name, "error": str(error)})
            return False
        return True

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


def _keep(_unreadable: Unreadable) -> None:
    """An object that cannot be read is kept; the list has logged it."""
