"""What the pages show: objects, kept by list and watch with the rights of the person."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from kms.clock import Clock
from kms.cluster.client import Cluster
from kms.resources.authorities import CertificateAuthority
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, POLICIES, PROFILES
from kms.resources.meta import GROUP, Condition, Key
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile
from kms_acme.certificates import LISTED_ORDERS, ListedOrder, Row
from kms_acme.console.changes import Changes
from kms_acme.console.collection import Collection
from kms_acme.console.entries import (
    EVENTS,
    LISTED_ACCOUNTS,
    Account,
    Credential,
    Event,
    Order,
    Uncertified,
    account_entry,
    as_of,
    credential_entry,
    order_entry,
)
from kms_acme.console.notes import Note, note_of

_SERVER = f"{GROUP}/server"
"""The server in Events."""


class Inventory:
    """Reads everything at once. `maximum_orders` are kept; an order takes about 0.8 kB."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str | None,
        *,
        clock: Clock,
        changes: Changes,
        maximum_orders: int = 200_000,
        refused: float = 30.0,
    ) -> None:
        self._clock = clock
        self._names: dict[Key, str] = {}
        common: dict[str, Any] = {"on_change": changes.notify, "refused": refused}
        self.authorities: Collection[CertificateAuthority, CertificateAuthority] = Collection(
            cluster, AUTHORITIES, namespace, keep=self._keep_authority, **common
        )
        self.policies: Collection[CertificatePolicy, tuple[Condition, ...]] = Collection(
            cluster, POLICIES, namespace, keep=lambda each: each.status.conditions, **common
        )
        self.profiles: Collection[CertificateProfile, CertificateProfile] = Collection(
            cluster, PROFILES, namespace, keep=lambda each: each, **common
        )
        self.credentials = Collection(cluster, CREDENTIALS, namespace, keep=credential_entry, **common)
        self.accounts = Collection(cluster, LISTED_ACCOUNTS, namespace, keep=account_entry, **common)
        self.orders: Collection[ListedOrder, Order] = Collection(
            cluster, LISTED_ORDERS, namespace, keep=self._keep_order, most=maximum_orders, **common
        )
        self.events: Collection[Event, Event] = Collection(
            cluster,
            EVENTS,
            namespace,
            fields=f"reportingController={_SERVER}",
            keep=lambda each: each,
            most=5_000,
            **common,
        )

    @property
    def collections(self) -> tuple[Collection[Any, Any], ...]:
        """All of them, those first that others need."""
        return (
            self.authorities,
            self.profiles,
            self.policies,
            self.credentials,
            self.accounts,
            self.events,
            self.orders,
        )

    async def run(self) -> None:
        """Read and watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for each in self.collections[:-1]:
                tasks.create_task(each.run())
            # Orders name their CA by its key.
            await self.authorities.settled.wait()
            tasks.create_task(self.orders.run())

    def current_orders(self, now: datetime) -> Iterator[Order]:
        """The orders as they are now."""
        entries = self.orders.entries
        for key, order in entries.items():
            current = as_of(order, now)
            if current is not order:
                entries[key] = current
            yield current

    def rows(self, now: datetime) -> Iterator[Row]:
        """The certificates as they are now."""
        return (each for each in self.current_orders(now) if isinstance(each, Row))

    def uncertified(self, now: datetime) -> Iterator[Uncertified]:
        """The orders without a certificate as they are now."""
        return (each for each in self.current_orders(now) if isinstance(each, Uncertified))

    def live_accounts(self) -> Iterator[Account]:
        """The accounts, without the names of later keys."""
        return (each for each in self.accounts.entries.values() if not each.is_alias)

    def credential(self, key: Key) -> Credential | None:
        """The credential of this namespace and name."""
        return self.credentials.entries.get(key)

    def notes(self, *needed: Collection[Any, Any]) -> list[Note]:
        """What is still being read of these, may not be read, or is outdated."""
        return [note for each in needed for note in note_of(each)]

    def _keep_authority(self, authority: CertificateAuthority) -> CertificateAuthority:
        for key_id in authority.key_ids:
            self._names[authority.metadata.namespace, key_id] = authority.metadata.name
        return authority

    def _keep_order(self, order: ListedOrder) -> Order:
        return order_entry(order, self._names, now=self._clock())
