"""Writes RevocationRecords: at once for what this server revokes, soon for what others have revoked.

Others are `kms-acme revoke`, a server that died between the two writes, and releases that had no records.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import TypeVar

from acme_server.problems import Unavailable
from acme_server.state.index import Index, View
from acme_server.state.revocation_records import RevocationRecords, account_record, certificate_record
from acme_server.state.store import Store
from acme_server.state.weight import weigh_record
from kms.clock import Clock
from kms.cluster.errors import AlreadyExists, ClusterError
from kms.pki.crl import KEY_COMPROMISE
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import Key, Resource
from kms.resources.orders import ACMEOrder
from kms.resources.revocations import RevocationRecord

T = TypeVar("T", bound=Resource)

logger = logging.getLogger(__name__)


class Unrecorded(View[T]):
    """The orders or accounts whose revocation has no record yet, as far as this replica knows, by key.

    `name_of` returns the name of the record; None: there is nothing to record.
    """

    def __init__(self, index: Index[T], name_of: Callable[[T], str | None]) -> None:
        super().__init__(index)
        self._name_of = name_of
        self._names: dict[Key, str] = {}

    def __len__(self) -> int:
        return len(self._names)

    def put(self, key: Key, resource: T) -> None:
        """Remember the object if it needs a record."""
        name = self._name_of(resource)
        if name is None:
            self._names.pop(key, None)
        else:
            self._names[key] = name

    def remove(self, key: Key) -> None:
        """Forget the object."""
        self._names.pop(key, None)

    def obscure(self, key: Key) -> None:
        """Leave the object as it is known: it cannot be read, so nothing new can be recorded."""

    def take(self, records: RevocationRecords) -> list[Key]:
        """The objects without a record; those that have one meanwhile are forgotten."""
        for key in [key for key, name in self._names.items() if records.holds(name)]:
            del self._names[key]
        return list(self._names)


class RevocationRecorder:
    """Records revocations in the release namespace `namespace`.

    Where a namespace has used up its share of the records, a revocation is in force without one, for as long as there
    is the order or account.

    `ends` returns until when the keys of an account of that profile are blocked. In seconds: `every` is the time
    between two looks for revocations without a record; `rate` is how many are written a second.
    """

    def __init__(
        self,
        *,
        store: Store[RevocationRecord],
        records: RevocationRecords,
        orders: Store[ACMEOrder],
        order_index: Index[ACMEOrder],
        accounts: Store[ACMEAccount],
        account_index: Index[ACMEAccount],
        namespace: str,
        ends: Callable[[Key], datetime],
        clock: Clock,
        every: float = 5.0,
        rate: float = 25.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._records = records
        self._orders = orders
        self._accounts = accounts
        self._namespace = namespace
        self._ends = ends
        self._clock = clock
        self._every = every
        self._rate = rate
        self._sleep = sleep
        self._indexes: tuple[Index[ACMEOrder], Index[ACMEAccount]] = order_index, account_index
        self._unrecorded_orders = Unrecorded(order_index, self._name_of_order)
        self._unrecorded_accounts = Unrecorded(account_index, lambda each: self._name(self._of_account(each)))

    def __len__(self) -> int:
        """The number of revocations without a record."""
        return len(self._unrecorded_orders) + len(self._unrecorded_accounts)

    async def record_order(self, order: ACMEOrder) -> None:
        """Record that the certificate of the order was revoked, unless that is recorded. Raises Unavailable."""
        await self._record(self._of_order(order))

    async def record_account(self, account: ACMEAccount) -> None:
        """Record that the account is not valid any more, unless that is recorded. Raises Unavailable."""
        await self._record(self._of_account(account))

    async def run(self, is_leading: Callable[[], bool]) -> None:
        """Record what others have revoked, while this replica leads; never returns."""
        while True:
            await self._sleep(self._every)
            if self._records.complete and all(each.complete for each in self._indexes):
                await self.record_missing(is_leading)

    async def record_missing(self, is_leading: Callable[[], bool] = lambda: True) -> None:
        """Write the records that are missing, one after the other. One that cannot be written stops no other."""
        orders, accounts = (each.take(self._records) for each in (self._unrecorded_orders, self._unrecorded_accounts))
        if not is_leading():
            return
        await self._repeat(orders, self._orders, self.record_order)
        await self._repeat(accounts, self._accounts, self.record_account)

    async def _repeat(self, keys: Iterable[Key], store: Store[T], record: Callable[[T], Awaitable[None]]) -> None:
        for key in keys:
            if not self._records.has_room(key[0]):
                continue
            try:
                found = await store.get(*key)
                if found is not None:
                    await record(found)
            except (ClusterError, Unavailable) as error:
                logger.warning("revocation cannot be recorded", extra={"object": "/".join(key), "error": str(error)})
            await self._sleep(1 / self._rate)

    def _of_order(self, order: ACMEOrder) -> RevocationRecord | None:
        return certificate_record(order, self._namespace)

    def _of_account(self, account: ACMEAccount) -> RevocationRecord | None:
        if account.status.state not in {"deactivated", "revoked"}:
            return None
        profile = account.metadata.namespace, account.spec.profile_ref.name
        return account_record(account, self._namespace, until=self._ends(profile))

    def _name_of_order(self, order: ACMEOrder) -> str | None:
        return self._name(self._of_order(order)) if order.status.revocation is not None else None

    def _name(self, record: RevocationRecord | None) -> str | None:
        """The name of the record if it is due: one that ended before it was written would be deleted again."""
        if record is None or record.spec.until < self._clock() or self._records.holds(record.metadata.name):
            return None
        return record.metadata.name

    async def _record(self, record: RevocationRecord | None) -> None:
        if record is None or self._records.holds(record.metadata.name):
            return
        revoked, namespace = record.spec.certificate, record.spec.namespace
        urgent = revoked is not None and revoked.reason == KEY_COMPROMISE
        if not self._records.has_room(namespace, weigh_record(record), urgent=urgent):
            extra = {"object": record.metadata.name, "namespace": namespace}
            logger.warning("too many revocations are recorded; this one ends with its order or account", extra=extra)
            return
        try:
            await self._store.add(record)
        except AlreadyExists:
            # Another replica wrote it; the read puts it into the index, as the write would have.
            await self._store.read_live(self._namespace, record.metadata.name)
