"""The services, put together: what the wiring of the server builds once and hands to the edge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from acme_server.accounts.eab_credentials import EABCredentials
from acme_server.accounts.service import Accounts
from acme_server.accounts.slots import is_account
from acme_server.certificates.crl import Changes, Publication
from acme_server.certificates.renewal_info import Renewals
from acme_server.certificates.revocation import ListedProofs, Revocations
from acme_server.metrics import Metrics
from acme_server.orders.caa import CAA
from acme_server.orders.cancellation import Cancellation
from acme_server.orders.finalize import OrderFinalization
from acme_server.orders.new_order import NewOrders
from acme_server.orders.policy import Objection, unobjectionable
from acme_server.orders.recovery import Recovery, UnfinishedOrders
from acme_server.orders.reliance import AuthorizationReuse
from acme_server.orders.service import PAGE, Orders
from acme_server.orders.validation_results import ValidationResults
from acme_server.profiles import Profiles
from acme_server.state.account_keys import AccountKeys
from acme_server.state.authorizations import Authorizations
from acme_server.state.certificates import Certificates
from acme_server.state.full_sync import FullSync
from acme_server.state.garbage_collector import GarbageCollector
from acme_server.state.index import Index
from acme_server.state.quotas import ObjectQuota, OpenOrderQuota
from acme_server.state.store import Store
from acme_server.urls import URLs
from acme_server.validation.attempt import ValidationTiming, Validator
from acme_server.validation.caa_lookup import CAALookup, LookupRecords
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
from kms.resources.kinds import ACCOUNTS, ORDERS
from kms.resources.orders import ACMEOrder, ChallengeType, opened
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile

ACCOUNT_CAPACITY = 10_000
ORDER_CAPACITY = 1_000
"""Objects in the caches: an order takes about 5 kB with its certificate, and is hardly read again once it has one."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The informers of what people write. `credentials` has the index credentials.UID_INDEX."""

    profiles: Informer[CertificateProfile]
    policies: Informer[CertificatePolicy]
    authorities: Informer[CertificateAuthority]
    credentials: Informer[EABCredential]
    secrets: Informer[Secret]


@dataclass(frozen=True, slots=True)
class ObjectLimits:
    """How many orders and accounts there may be altogether, before etcd is full: an order takes 5 kB there."""

    orders: int = 150_000
    accounts: int = 50_000


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything below the edge. `background` are to be run as tasks until the server ends, `worker` to be drained."""

    profiles: Profiles
    credentials: EABCredentials
    accounts: Accounts
    orders: Orders
    renewals: Renewals
    revocations: Revocations
    publication: Publication
    worker: Worker
    cancellation: Cancellation
    caa: CAA
    account_store: Store[ACMEAccount]
    order_store: Store[ACMEOrder]
    account_keys: AccountKeys
    certificates: Certificates
    account_index: Index[ACMEAccount]
    order_index: Index[ACMEOrder]
    open_orders: OpenOrderQuota
    order_quota: ObjectQuota[ACMEOrder]
    account_quota: ObjectQuota[ACMEAccount]
    garbage_collector: GarbageCollector
    unfinished_orders: UnfinishedOrders
    authorizations: Authorizations
    account_sync: FullSync[ACMEAccount]
    order_sync: FullSync[ACMEOrder]
    account_feed: ChangeFeed[ACMEAccount]
    order_feed: ChangeFeed[ACMEOrder]

    @classmethod
    def build(
        cls,
        *,
        cluster: Cluster,
        namespace: str,
        configuration: Configuration,
        urls: URLs,
        validators: Mapping[ChallengeType, Validator],
        lookup_caa: LookupRecords,
        replica: str,
        namespaces: tuple[str, ...] = (),
        is_sole_writer: Callable[[], bool] = lambda: True,
        objection: Objection = unobjectionable,
        clock: Clock = system_clock,
        entropy: Entropy = system_entropy,
        metrics: Metrics | None = None,
        timing: ValidationTiming | None = None,
        limits: ObjectLimits | None = None,
        orders_page: int = PAGE,
    ) -> Services:
        """Wire the services. `namespace` is the release namespace, `namespaces` are those watched (none: all).

        `replica` is a name of this process's place that survives a restart: the pod's name. `objection` says which
        addresses are no identifiers here.
        """
        metrics = metrics or Metrics()
        account_index: Index[ACMEAccount] = Index()
        order_index: Index[ACMEOrder] = Index()
        account_keys = AccountKeys(account_index)
        changes = Changes()
        certificates = Certificates(order_index, on_revocation=changes.note)
        authorizations = Authorizations(order_index, clock=clock)
        limits = limits or ObjectLimits()
        order_quota = ObjectQuota(order_index, "orders", maximum=limits.orders)
        account_quota = ObjectQuota(account_index, "accounts", maximum=limits.accounts, counts_for_profile=is_account)
        unfinished_orders = UnfinishedOrders(order_index)
        open_orders = OpenOrderQuota(order_index, clock=clock)
        accounts: Store[ACMEAccount] = Store(
            cluster,
            ACCOUNTS,
            capacity=ACCOUNT_CAPACITY,
            index=account_index,
            is_sole_writer=is_sole_writer,
        )
        orders: Store[ACMEOrder] = Store(
            cluster,
            ORDERS,
            capacity=ORDER_CAPACITY,
            normalise=opened,
            is_sole_writer=is_sole_writer,
            index=order_index,
        )
        account_sync = FullSync(cluster, ACCOUNTS, account_index, namespaces=namespaces)
        order_sync = FullSync(cluster, ORDERS, order_index, namespaces=namespaces)
        profiles = Profiles(
            profiles=configuration.profiles,
            policies=configuration.policies,
            authorities=configuration.authorities,
        )
        credentials = EABCredentials(
            cluster=cluster,
            namespace=namespace,
            credentials=configuration.credentials,
            clock=clock,
        )
        recovery = Recovery(replica=replica, life=entropy(8).hex(), clock=clock, is_sole_writer=is_sole_writer)
        validation_results = ValidationResults(
            orders=orders,
            accounts=accounts,
            profiles=profiles,
            clock=clock,
            metrics=metrics,
            attempt=recovery.attempt,
        )
        cancellation = Cancellation(orders=orders, clock=clock)
        caa = CAA(lookup=CAALookup(lookup_caa), profiles=profiles, urls=urls, clock=clock, metrics=metrics)
        worker = Worker(
            validators=validators,
            check_caa=caa.proven,
            store_results=validation_results.record,
            clock=clock,
            metrics=metrics,
            timing=timing,
        )
        authorization_reuse = AuthorizationReuse(orders=orders, authorizations=authorizations, clock=clock)
        issuers = Issuers(secrets=configuration.secrets, namespace=namespace)
        finalization = OrderFinalization(
            orders=orders,
            accounts=accounts,
            profiles=profiles,
            authorization_reuse=authorization_reuse,
            credentials=credentials,
            account_keys=account_keys,
            certificates=certificates,
            issuers=issuers,
            caa=caa,
            urls=urls,
            clock=clock,
            metrics=metrics,
        )
        renewals = Renewals(certificates=certificates, authorities=configuration.authorities, clock=clock)
        new_orders = NewOrders(
            store=orders,
            accounts=accounts,
            profiles=profiles,
            credentials=credentials,
            open_orders=open_orders,
            population=order_quota,
            authorizations=authorizations,
            renewals=renewals,
            worker=worker,
            objection=objection,
            clock=clock,
            entropy=entropy,
            metrics=metrics,
        )
        account_service = Accounts(
            store=accounts,
            credentials=credentials,
            certificates=certificates,
            population=account_quota,
            clock=clock,
            on_deactivated=cancellation.begin,
        )
        order_feed = ChangeFeed(
            cluster,
            ORDERS,
            namespaces=namespaces,
            on_change=orders.apply_event,
            on_gap=_each((orders.clear, order_sync.request)),
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
                clock=clock,
                page=orders_page,
            ),
            renewals=renewals,
            revocations=Revocations(
                orders=orders,
                accounts=account_service,
                certificates=certificates,
                authorizations=ListedProofs(orders=orders, clock=clock),
                clock=clock,
            ),
            publication=Publication(
                authorities=configuration.authorities,
                certificates=certificates,
                changes=changes,
                issuers=issuers,
                # Until the watch has begun, the inventory says itself that it is not complete.
                interrupted=lambda: order_feed.interrupted() if order_feed.following.is_set() else 0.0,
                clock=clock,
            ),
            worker=worker,
            cancellation=cancellation,
            caa=caa,
            account_store=accounts,
            order_store=orders,
            account_keys=account_keys,
            certificates=certificates,
            account_index=account_index,
            order_index=order_index,
            open_orders=open_orders,
            order_quota=order_quota,
            account_quota=account_quota,
            garbage_collector=GarbageCollector(
                cluster,
                orders=orders,
                accounts=accounts,
                profiles=configuration.profiles,
                namespaces=namespaces,
                orders_listed=order_sync.done,
                clock=clock,
                metrics=metrics,
            ),
            unfinished_orders=unfinished_orders,
            authorizations=authorizations,
            account_sync=account_sync,
            order_sync=order_sync,
            account_feed=ChangeFeed(
                cluster,
                ACCOUNTS,
                namespaces=namespaces,
                on_change=accounts.apply_event,
                on_gap=_each((accounts.clear, account_sync.request)),
            ),
            order_feed=order_feed,
        )


def _each(callbacks: Iterable[Callable[[], None]]) -> Callable[[], None]:
    chosen = tuple(callbacks)

    def call() -> None:
        for callback in chosen:
            callback()

    return call
