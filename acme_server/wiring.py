"""What the services are built from: the configuration, the environment, and the state of this replica."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from acme_server.accounts.client_namespaces import LabelsOf
from acme_server.accounts.eab_credentials import EABCredentials
from acme_server.accounts.record_keeper import RecordKeeper
from acme_server.accounts.service import Accounts
from acme_server.accounts.slots import is_account
from acme_server.certificates.crl import CRLs, RevocationCounter
from acme_server.certificates.renewal_info import Renewals
from acme_server.certificates.revocation import Revocations
from acme_server.metrics import Metrics
from acme_server.orders.authorization_reuse import AuthorizationReuse
from acme_server.orders.caa import CAA
from acme_server.orders.cancellation import Cancellation
from acme_server.orders.finalize import OrderFinalization
from acme_server.orders.new_order import NewOrders
from acme_server.orders.policy import Objection, no_objection
from acme_server.orders.recovery import Recovery, UnfinishedOrders
from acme_server.orders.service import PAGE, Orders
from acme_server.orders.validation_results import ValidationResults
from acme_server.profiles import Profiles
from acme_server.settings import ServerSettings, ValidationSettings
from acme_server.state.account_keys import AccountKeys
from acme_server.state.authorizations import Authorizations
from acme_server.state.certificates import Certificates
from acme_server.state.full_sync import FullSync
from acme_server.state.garbage_collector import GarbageCollector
from acme_server.state.index import Index
from acme_server.state.quotas import ObjectQuota, OpenOrderQuota
from acme_server.state.retention import AFTER_COMPROMISE
from acme_server.state.revocation_recorder import RevocationRecorder
from acme_server.state.revocation_records import RevocationRecords
from acme_server.state.store import Store
from acme_server.state.turns import Turns
from acme_server.state.weight import memory_of_account, memory_of_order, weigh_account, weigh_order
from acme_server.state.write_rate import WriteRate
from acme_server.tasks import Work
from acme_server.urls import URLs
from acme_server.validation.attempt import ValidationTiming, Validator
from acme_server.validation.caa_lookup import CAALookup, LookupRecords
from acme_server.validation.dns.client import Resolver
from acme_server.validation.dns01 import DNS01
from acme_server.validation.http01 import HTTP01
from acme_server.validation.net.address_filter import AddressFilter
from acme_server.validation.tlsalpn01 import TLSALPN01
from acme_server.validation.worker import Worker
from kms.clock import Clock, Entropy, system_clock, system_entropy
from kms.cluster.change_feed import ChangeFeed
from kms.cluster.client import Cluster
from kms.cluster.informer import Informer
from kms.issuers import Issuers
from kms.resources.accounts import ACMEAccount
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.credentials import EABCredential
from kms.resources.kinds import ACCOUNTS, ORDERS, REVOCATION_RECORDS, Kind
from kms.resources.meta import Key, Resource
from kms.resources.orders import ACMEOrder, ChallengeType, with_authorizations
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile
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
class Configuration:
    """The informers of the configuration kinds, and the labels of namespaces.

    `credentials` has the index UID_INDEX, `secrets` OWNER_INDEX.
    """

    profiles: Informer[CertificateProfile]
    policies: Informer[CertificatePolicy]
    authorities: Informer[CertificateAuthority]
    credentials: Informer[EABCredential]
    secrets: Informer[Secret]
    labels_of: LabelsOf


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How identifiers are validated. `objection` says why an address must not be certified here."""

    validators: Mapping[ChallengeType, Validator]
    lookup_caa: LookupRecords
    objection: Objection = no_objection
    timing: ValidationTiming | None = None

    @classmethod
    def build(cls, settings: ValidationSettings) -> Validation:
        """Validate over the network."""
        return cls(
            validators={
                "http-01": HTTP01.build(settings),
                "dns-01": DNS01.build(settings),
                "tls-alpn-01": TLSALPN01.build(settings),
            },
            lookup_caa=Resolver.build(settings.resolvers).caa,
            objection=AddressFilter(settings).objection,
        )


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The process. `replica` names its place and survives a restart: in a pod, it is the name of the pod.

    `is_sole_writer` says whether no other replica can have written in the last minute.
    """

    replica: str
    is_sole_writer: Callable[[], bool] = lambda: True
    clock: Clock = system_clock
    entropy: Entropy = system_entropy
    metrics: Metrics = field(default_factory=Metrics)


@dataclass(frozen=True, kw_only=True)
class State:
    """The accounts, orders and revocations that this replica knows, and the watches that keep them current."""

    accounts: Store[ACMEAccount]
    orders: Store[ACMEOrder]
    records: Store[RevocationRecord]
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
        environment: Environment,
        *,
        on_revocation: Callable[[str, str], None],
    ) -> State:
        """Wire the stores, their indexes and the watches."""
        account_index: Index[ACMEAccount] = Index()
        order_index: Index[ACMEOrder] = Index()

        def account_cache_is_current() -> bool:
            # Administrators write accounts too (kms-acme account), so without a watch the cache may be outdated.
            watched = not account_feed.following.is_set() or not account_feed.outage_seconds()
            return watched and environment.is_sole_writer()

        record_index: Index[RevocationRecord] = Index()
        accounts = Store(
            cluster,
            ACCOUNTS,
            capacity=ACCOUNT_CAPACITY,
            octets=CACHE_OCTETS,
            weigh=memory_of_account,
            index=account_index,
            is_sole_writer=account_cache_is_current,
        )
        write_rate = WriteRate(
            clock=environment.clock,
            maximum=settings.maximum_order_bytes,
            namespace_share=settings.namespace_share,
        )
        orders = Store(
            cluster,
            ORDERS,
            capacity=ORDER_CAPACITY,
            octets=CACHE_OCTETS,
            weigh=memory_of_order,
            normalise=with_authorizations,
            index=order_index,
            is_sole_writer=environment.is_sole_writer,
            admit_write=_admission(write_rate),
        )
        # Records never change and are not read again, so none is kept in the cache.
        records = Store(cluster, REVOCATION_RECORDS, capacity=1, index=record_index)
        revoked = RevocationRecords(record_index, on_revocation=on_revocation)
        namespaces, release = settings.watch_namespaces, (settings.namespace,)
        account_sync = FullSync(cluster, ACCOUNTS, account_index, namespaces=namespaces)
        order_sync = FullSync(cluster, ORDERS, order_index, namespaces=namespaces)
        account_feed = _feed(cluster, ACCOUNTS, accounts, account_sync, namespaces)
        record_sync = FullSync(cluster, REVOCATION_RECORDS, record_index, namespaces=release)
        return cls(
            accounts=accounts,
            orders=orders,
            records=records,
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
                weigh=weigh_account,
                counts_for_profile=is_account,
            ),
            certificates=Certificates(order_index, records=revoked, on_revocation=on_revocation),
            authorizations=Authorizations(order_index, clock=environment.clock),
            order_quota=ObjectQuota(
                order_index,
                "orders",
                maximum=settings.maximum_orders,
                maximum_octets=settings.maximum_order_bytes,
                namespace_share=settings.namespace_share,
                account_share=settings.account_share,
                weigh=weigh_order,
                write_rate=write_rate,
                account_of=lambda order: order.spec.account_ref.name,
            ),
            open_orders=OpenOrderQuota(order_index, clock=environment.clock),
            revoked=revoked,
            write_rate=write_rate,
            account_sync=account_sync,
            order_sync=order_sync,
            account_feed=account_feed,
            record_sync=record_sync,
            order_feed=_feed(cluster, ORDERS, orders, order_sync, namespaces),
            record_feed=_feed(cluster, REVOCATION_RECORDS, records, record_sync, release),
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


def _admission(write_rate: WriteRate) -> Callable[[ACMEOrder], None]:
    """Admit each write of an order. Revocations must not wait for others; each certificate is revoked once."""

    def admit(order: ACMEOrder) -> None:
        write_rate.admit(order.metadata.namespace, urgent=order.status.revocation is not None)

    return admit


def _feed(
    cluster: Cluster, kind: Kind[T], store: Store[T], full_sync: FullSync[T], namespaces: Sequence[str]
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
    )


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything below the edge."""

    profiles: Profiles
    credentials: EABCredentials
    accounts: Accounts
    orders: Orders
    renewals: Renewals
    revocations: Revocations
    crls: CRLs
    worker: Worker
    cancellation: Cancellation
    caa: CAA
    garbage_collector: GarbageCollector
    record_keeper: RecordKeeper
    recorder: RevocationRecorder
    unfinished_orders: UnfinishedOrders
    state: State

    @classmethod
    def build(
        cls,
        cluster: Cluster,
        settings: ServerSettings,
        *,
        urls: URLs,
        configuration: Configuration,
        validation: Validation,
        environment: Environment,
        orders_page: int = PAGE,
    ) -> Services:
        """Wire the services and their state."""
        clock, entropy, metrics = environment.clock, environment.entropy, environment.metrics
        revocations = RevocationCounter()
        state = State.build(cluster, settings, environment, on_revocation=revocations.increment)
        accounts, orders = state.accounts, state.orders

        def authority_ends(profile: Key) -> datetime:
            """When the last certificate of the profile has ended, which is a year from now or when its CA ends."""
            resource = configuration.profiles.get(*profile)
            issuer = resource and configuration.authorities.get(profile[0], resource.spec.issuer_ref.name)
            in_a_year = clock() + AFTER_COMPROMISE
            return min(in_a_year, (issuer and issuer.status.not_after) or in_a_year)

        recorder = RevocationRecorder(
            store=state.records,
            records=state.revoked,
            orders=orders,
            order_index=state.order_index,
            accounts=accounts,
            account_index=state.account_index,
            namespace=settings.namespace,
            ends=authority_ends,
            clock=clock,
        )
        profiles = Profiles(
            profiles=configuration.profiles,
            policies=configuration.policies,
            authorities=configuration.authorities,
        )
        credentials = EABCredentials(
            cluster=cluster,
            namespace=settings.namespace,
            credentials=configuration.credentials,
            labels_of=configuration.labels_of,
            clock=clock,
        )
        recovery = Recovery(
            replica=environment.replica,
            life=entropy(8).hex(),
            clock=clock,
            is_sole_writer=environment.is_sole_writer,
        )
        validation_results = ValidationResults(
            orders=orders,
            accounts=accounts,
            profiles=profiles,
            credentials=credentials,
            clock=clock,
            metrics=metrics,
            attempt=recovery.attempt,
        )
        turns = Turns()
        cancellation = Cancellation(orders=orders, clock=clock)
        caa = CAA(lookup=CAALookup(validation.lookup_caa), profiles=profiles, urls=urls, clock=clock, metrics=metrics)
        worker = Worker(
            validators=validation.validators,
            check_caa=caa.check_challenge,
            store_results=validation_results.record,
            clock=clock,
            metrics=metrics,
            timing=validation.timing,
        )
        authorization_reuse = AuthorizationReuse(
            orders=orders, authorizations=state.authorizations, credentials=credentials, clock=clock
        )
        issuers = Issuers(find_secret=configuration.secrets.get, namespace=settings.namespace)
        finalization = OrderFinalization(
            orders=orders,
            accounts=accounts,
            profiles=profiles,
            authorization_reuse=authorization_reuse,
            credentials=credentials,
            account_keys=state.account_keys,
            certificates=state.certificates,
            issuers=issuers,
            caa=caa,
            urls=urls,
            quota=state.order_quota,
            clock=clock,
            metrics=metrics,
        )
        renewals = Renewals(certificates=state.certificates, authorities=configuration.authorities, clock=clock)
        new_orders = NewOrders(
            store=orders,
            accounts=accounts,
            profiles=profiles,
            credentials=credentials,
            open_orders=state.open_orders,
            quota=state.order_quota,
            authorizations=state.authorizations,
            certificates=state.certificates,
            worker=worker,
            is_renewal_due=renewals.is_due,
            objection=validation.objection,
            clock=clock,
            entropy=entropy,
            metrics=metrics,
        )
        account_service = Accounts(
            store=accounts,
            credentials=credentials,
            certificates=state.certificates,
            records=state.revoked,
            recorder=recorder,
            quota=state.account_quota,
            clock=clock,
            on_deactivated=cancellation.enqueue,
        )
        return cls(
            profiles=profiles,
            credentials=credentials,
            accounts=account_service,
            orders=Orders(
                store=orders,
                accounts=accounts,
                profiles=profiles,
                credentials=credentials,
                new_orders=new_orders,
                worker=worker,
                recovery=recovery,
                finalization=finalization,
                authorization_reuse=authorization_reuse,
                turns=turns,
                clock=clock,
                page=orders_page,
            ),
            renewals=renewals,
            revocations=Revocations(
                orders=orders,
                accounts=account_service,
                certificates=state.certificates,
                recorder=recorder,
                authorizations=state.authorizations,
                turns=turns,
                clock=clock,
            ),
            crls=CRLs(
                authorities=configuration.authorities,
                secrets=configuration.secrets,
                certificates=state.certificates,
                records=state.revoked,
                revocations=revocations,
                issuers=issuers,
                # Before the watches have begun, the indexes themselves are incomplete.
                outage_seconds=state.outage_seconds,
                clock=clock,
            ),
            worker=worker,
            cancellation=cancellation,
            caa=caa,
            garbage_collector=GarbageCollector(
                cluster,
                orders=orders,
                accounts=accounts,
                records=state.records,
                account_index=state.account_index,
                profiles=configuration.profiles,
                namespace=settings.namespace,
                namespaces=settings.watch_namespaces,
                deletion_retention=settings.deletion_retention,
                orders_listed=state.order_sync.done,
                clock=clock,
                metrics=metrics,
            ),
            record_keeper=RecordKeeper(
                state.account_index,
                cluster=cluster,
                accounts=accounts,
                credentials=configuration.credentials,
                clock=clock,
            ),
            recorder=recorder,
            unfinished_orders=UnfinishedOrders(state.order_index),
            state=state,
        )
