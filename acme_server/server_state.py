"""What this replica knows: the accounts, orders and revocations, and the watches that keep them current."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from acme_server.accounts.slots import is_account
from acme_server.audit.stream import AuditStream
from acme_server.metrics import Metrics
from acme_server.settings import ServerSettings
from acme_server.state.account_keys import AccountKeys
from acme_server.state.authorizations import Authorizations
from acme_server.state.certificate_chains import CertificateChains
from acme_server.state.certificates import Certificates
from acme_server.state.full_sync import FullSync
from acme_server.state.index import Index
from acme_server.state.quotas import ObjectQuota, OpenOrderQuota
from acme_server.state.revocation_records import RevocationRecords
from acme_server.state.store import Store, Verb
from acme_server.state.weight import memory_of_account, memory_of_order, weigh_account, weigh_order
from acme_server.state.write_rate import WriteRate
from acme_server.tasks import Work
from kms.clock import Clock
from kms.cluster.change_feed import ChangeFeed
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError
from kms.cluster.retry import Timing
from kms.resources.accounts import ACMEAccount
from kms.resources.authorities import CertificateAuthority
from kms.resources.kinds import ACCOUNTS, ORDERS, REVOCATION_RECORDS, Kind
from kms.resources.meta import Resource
from kms.resources.orders import OPEN_STATES, ACMEOrder, with_authorizations
from kms.resources.revocations import RevocationRecord

T = TypeVar("T", bound=Resource)

ACCOUNT_CAPACITY = 10_000
ORDER_CAPACITY = 1_000
"""Objects in the caches. An order takes about 4 kB with its certificate, and is hardly read again once it has one."""
CACHE_OCTETS = 24 * 2**20
"""Memory of the objects in a cache."""
ACCOUNT_OCTETS = 4_096
"""The accounts may take as much together as `maximum_accounts` of this length; most take less than 2 kB."""


@dataclass(frozen=True, kw_only=True)
class State:
    """The accounts, orders and revocations that this replica knows, and the watches that keep them current."""

    accounts: Store[ACMEAccount]
    orders: Store[ACMEOrder]
    records: Store[RevocationRecord]
    chains: CertificateChains
    account_index: Index[ACMEAccount]
    order_index: Index[ACMEOrder]
    record_index: Index[RevocationRecord]
    account_keys: AccountKeys
    account_quota: ObjectQuota[ACMEAccount]
    certificates: Certificates
    authorizations: Authorizations
    order_quota: ObjectQuota[ACMEOrder]
    open_orders: OpenOrderQuota
    revoked: RevocationRecords
    write_rate: WriteRate
    account_sync: FullSync[ACMEAccount]
    order_sync: FullSync[ACMEOrder]
    record_sync: FullSync[RevocationRecord]
    account_feed: ChangeFeed[ACMEAccount]
    order_feed: ChangeFeed[ACMEOrder]
    record_feed: ChangeFeed[RevocationRecord]

    @classmethod
    def build(
        cls,
        cluster: Cluster,
        settings: ServerSettings,
        *,
        clock: Clock,
        is_sole_writer: Callable[[], bool],
        all_read_references: Callable[[], bool],
        authorities: Callable[[], Iterable[CertificateAuthority]],
        on_revocation: Callable[[str, str], None],
        on_refused: Callable[[Kind[Any], Verb, Resource | None, ClusterError], None],
        audit: AuditStream,
        on_order: Callable[[ACMEOrder | None, ACMEOrder], None],
    ) -> State:
        """Wire the stores, their indexes and the watches. `on_order` is called after each write of an order."""
        account_index: Index[ACMEAccount] = Index()
        order_index: Index[ACMEOrder] = Index()

        def accounts_are_watched() -> bool:
            return account_feed.following.is_set() and not account_feed.outage_seconds()

        def account_cache_is_current() -> bool:
            # Administrators write accounts too (kms-acme account), so without a watch the cache may be outdated.
            return is_sole_writer() and (accounts_are_watched() or not account_feed.following.is_set())

        def reach(namespace: str, version: int) -> Awaitable[bool]:
            return order_feed.reach(namespace, version)

        record_index: Index[RevocationRecord] = Index()
        accounts = Store(
            cluster,
            ACCOUNTS,
            capacity=ACCOUNT_CAPACITY,
            octets=CACHE_OCTETS,
            weigh=memory_of_account,
            index=account_index,
            is_sole_writer=account_cache_is_current,
            is_watched=accounts_are_watched,
            keep_event=lambda _account: not is_sole_writer(),
            on_refused=partial(on_refused, ACCOUNTS),
            on_written=audit.on_account,
        )
        write_rate = WriteRate(
            clock=clock,
            maximum=settings.maximum_order_bytes,
            namespace_share=settings.namespace_share,
            tenant_share=settings.account_share,
        )

        def on_order_written(before: ACMEOrder | None, after: ACMEOrder) -> None:
            audit.on_order(accounts.get_cached, before, after)
            on_order(before, after)

        orders = Store(
            cluster,
            ORDERS,
            capacity=ORDER_CAPACITY,
            octets=CACHE_OCTETS,
            weigh=memory_of_order,
            normalise=with_authorizations,
            index=order_index,
            is_sole_writer=is_sole_writer,
            admit_write=_admission(write_rate),
            on_refused=partial(on_refused, ORDERS),
            on_written=on_order_written,
            # A schema of before would leave the reference out, and with it the chain.
            is_strict=_introduces_reference,
            reach=reach,
            # Clients go from one replica to another with an order that is not finished.
            keep_event=lambda order: order.status.state in OPEN_STATES and not is_sole_writer(),
        )
        # Records never change and are not read again, so none is kept in the cache.
        records = Store(
            cluster,
            REVOCATION_RECORDS,
            capacity=1,
            index=record_index,
            on_refused=partial(on_refused, REVOCATION_RECORDS),
            on_written=audit.on_revocation_record,
        )
        revoked = RevocationRecords(record_index, on_revocation=on_revocation, namespace_share=settings.namespace_share)
        namespaces, release = settings.watch_namespaces, (settings.namespace,)
        account_sync = FullSync(cluster, ACCOUNTS, account_index, namespaces=namespaces)
        order_sync = FullSync(cluster, ORDERS, order_index, namespaces=namespaces)
        account_feed = feed_of(cluster, ACCOUNTS, accounts, account_sync, namespaces)
        order_feed = feed_of(cluster, ORDERS, orders, order_sync, namespaces)
        order_quota = ObjectQuota(
            order_index,
            "orders",
            maximum=settings.maximum_orders,
            maximum_octets=settings.maximum_order_bytes,
            namespace_share=settings.namespace_share,
            account_share=settings.account_share,
            weigh=weigh_order,
            write_rate=write_rate,
            account_of=lambda order: order.spec.account_ref.name,
            tenant_of=lambda order: order.tenant,
        )
        record_sync = FullSync(cluster, REVOCATION_RECORDS, record_index, namespaces=release)
        return cls(
            accounts=accounts,
            orders=orders,
            records=records,
            chains=CertificateChains(
                cluster,
                namespaces=namespaces,
                all_read_references=all_read_references,
                authorities=authorities,
                clock=clock,
            ),
            account_index=account_index,
            order_index=order_index,
            record_index=record_index,
            account_keys=AccountKeys(account_index),
            account_quota=ObjectQuota(
                account_index,
                "accounts",
                maximum=settings.maximum_accounts,
                maximum_octets=settings.maximum_accounts * ACCOUNT_OCTETS,
                namespace_share=settings.namespace_share,
                account_share=settings.account_share,
                weigh=weigh_account,
                tenant_of=lambda account: account.tenant,
                counts_for_profile=is_account,
            ),
            certificates=Certificates(order_index, records=revoked, on_revocation=on_revocation),
            authorizations=Authorizations(order_index, clock=clock),
            order_quota=order_quota,
            open_orders=OpenOrderQuota(order_index, octets_of=order_quota.octets_of, clock=clock),
            revoked=revoked,
            write_rate=write_rate,
            account_sync=account_sync,
            order_sync=order_sync,
            account_feed=account_feed,
            record_sync=record_sync,
            order_feed=order_feed,
            record_feed=feed_of(cluster, REVOCATION_RECORDS, records, record_sync, release),
        )

    def outage_seconds(self) -> float:
        """For how many seconds a watch of orders or revocations has been down; 0 before the watches have begun."""
        feeds = (self.order_feed, self.record_feed)
        return max(each.outage_seconds() if each.following.is_set() else 0.0 for each in feeds)

    @property
    def works(self) -> dict[str, Work]:
        """The tasks that keep the state current."""
        return {
            "watch of accounts": self.account_feed.run,
            "watch of orders": self.order_feed.run,
            "watch of revocations": self.record_feed.run,
            "watch of chains": self.chains.run,
            "list of accounts": self.account_sync.run,
            "list of orders": self.order_sync.run,
            "list of revocations": self.record_sync.run,
        }

    @property
    def conditions(self) -> dict[str, Callable[[], bool]]:
        """What readiness waits for."""
        return {
            "watch of accounts": self.account_feed.following.is_set,
            "watch of orders": self.order_feed.following.is_set,
            "watch of revocations": self.record_feed.following.is_set,
            "list of accounts": self.account_sync.done.is_set,
            "list of orders": self.order_sync.done.is_set,
            "list of revocations": self.record_sync.done.is_set,
        }

    def report_to(self, metrics: Metrics) -> None:
        """Show the sizes of caches and the numbers of objects as metrics."""
        metrics.watch_cache("accounts", self.accounts.__len__, self.account_feed.idle_seconds)
        metrics.watch_cache("orders", self.orders.__len__, self.order_feed.idle_seconds)
        for kind, quota in ((ACCOUNTS.plural, self.account_quota), (ORDERS.plural, self.order_quota)):
            metrics.watch_objects(kind, quota.__len__, quota.maximum)
            metrics.watch_octets(kind, quota.octets, quota.maximum_octets)


def _introduces_reference(before: ACMEOrder, after: ACMEOrder) -> bool:
    return after.status.chain_ref is not None and before.status.chain_ref is None


def _admission(write_rate: WriteRate) -> Callable[[ACMEOrder], None]:
    """Admit each write of an order. Revocations must not wait for others; each certificate is revoked once."""

    def admit(order: ACMEOrder) -> None:
        write_rate.admit(order.metadata.namespace, order.tenant, urgent=order.status.revocation is not None)

    return admit


def feed_of(
    cluster: Cluster,
    kind: Kind[T],
    store: Store[T],
    full_sync: FullSync[T],
    namespaces: Sequence[str],
    *,
    timing: Timing | None = None,
) -> ChangeFeed[T]:
    """The watch that keeps the store current, and begins with a full list."""

    def on_gap() -> None:
        store.clear()
        full_sync.request()

    return ChangeFeed(
        cluster,
        kind,
        namespaces=namespaces,
        on_change=store.apply_event,
        on_unreadable=store.apply_unreadable,
        on_gap=on_gap,
        on_return=store.forget,
        is_known=store.is_known,
        timing=timing,
    )
