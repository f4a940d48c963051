"""The services, put together: what the wiring of the server builds once and hands to the edge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from acme_server.accounts.eab_credentials import Credentials, IndexedSource
from acme_server.accounts.service import Accounts
from acme_server.accounts.slots import is_account
from acme_server.certificates.crl import Changes, Publication
from acme_server.certificates.renewal_info import Renewals
from acme_server.certificates.revocation import ListedProofs, Revocations
from acme_server.measures import Measures, NoMeasures
from acme_server.orders.caa import CAA
from acme_server.orders.cancellation import Cancellation
from acme_server.orders.finalize import Finalizer
from acme_server.orders.new_order import Opener
from acme_server.orders.policy import Objection, unobjectionable
from acme_server.orders.recovery import Resumption
from acme_server.orders.reliance import Reliance
from acme_server.orders.service import PAGE, Orders
from acme_server.orders.validation_results import Recorder
from acme_server.profiles import Profiles, Source
from acme_server.state.account_keys import KnownKeys
from acme_server.state.authorizations import Proofs
from acme_server.state.certificates import Inventory
from acme_server.state.full_sync import Survey
from acme_server.state.garbage_collector import Sweeper, Unfinished
from acme_server.state.open_orders import OpenOrders
from acme_server.state.quotas import Population
from acme_server.state.store import Store
from acme_server.urls import Links
from acme_server.validation.attempt import Pace, Validate
from acme_server.validation.caa_lookup import CAALookup
from acme_server.validation.dns.records import RecordSource
from acme_server.validation.worker import Worker
from kms.clock import Clock, Entropy, system_clock, system_entropy
from kms.cluster.change_feed import Follower
from kms.cluster.client import Cluster
from kms.issuers import Issuers
from kms.resources.accounts import ACMEAccount
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
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

    profiles: Source[CertificateProfile]
    policies: Source[CertificatePolicy]
    authorities: Source[CertificateAuthority]
    credentials: IndexedSource
    secrets: Source[Secret]


@dataclass(frozen=True, slots=True)
class Maxima:
    """How many orders and accounts there may be altogether, before etcd is full: an order takes 5 kB there."""

    orders: int = 150_000
    accounts: int = 50_000


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything below the edge. `background` are to be run as tasks until the server ends, `worker` to be drained."""

    profiles: Profiles
    credentials: Credentials
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
    known_keys: KnownKeys
    inventory: Inventory
    order_population: Population
    account_population: Population
    sweeper: Sweeper
    unfinished: Unfinished
    proofs: Proofs
    account_survey: Survey[ACMEAccount]
    order_survey: Survey[ACMEOrder]
    account_follower: Follower[ACMEAccount]
    order_follower: Follower[ACMEOrder]

    @classmethod
    def build(
        cls,
        *,
        cluster: Cluster,
        namespace: str,
        configuration: Configuration,
        links: Links,
        validators: Mapping[ChallengeType, Validate],
        records: RecordSource,
        replica: str,
        namespaces: tuple[str, ...] = (),
        alone: Callable[[], bool] = lambda: True,
        objection: Objection = unobjectionable,
        clock: Clock = system_clock,
        entropy: Entropy = system_entropy,
        measures: Measures | None = None,
        pace: Pace | None = None,
        maxima: Maxima | None = None,
        orders_page: int = PAGE,
    ) -> Services:
        """Wire the services. `namespace` is the release namespace, `namespaces` are those watched (none: all).

        `replica` is a name of this process's place that survives a restart: the pod's name. `objection` says which
        addresses are no identifiers here.
        """
        measures = measures or NoMeasures()
        known_keys = KnownKeys()
        changes = Changes()
        inventory = Inventory(on_revocation=changes.note)
        proofs = Proofs(clock=clock)
        maxima = maxima or Maxima()
        order_population = Population("orders", maximum=maxima.orders)
        account_population = Population("accounts", maximum=maxima.accounts, by_profile=is_account)
        unfinished = Unfinished()
        limits = OpenOrders(clock=clock)
        accounts: Store[ACMEAccount] = Store(
            cluster, ACCOUNTS, capacity=ACCOUNT_CAPACITY, listeners=(known_keys.seen, account_population.seen)
        )
        orders: Store[ACMEOrder] = Store(
            cluster,
            ORDERS,
            capacity=ORDER_CAPACITY,
            normalise=opened,
            listeners=(limits.seen, inventory.seen, proofs.seen, order_population.seen, unfinished.seen),
        )
        account_survey = Survey(cluster, ACCOUNTS, known_keys, account_population, namespaces=namespaces)
        order_survey = Survey(cluster, ORDERS, inventory, proofs, order_population, unfinished, namespaces=namespaces)
        profiles = Profiles(
            profiles=configuration.profiles,
            policies=configuration.policies,
            authorities=configuration.authorities,
        )
        credentials = Credentials(
            cluster=cluster,
            namespace=namespace,
            credentials=configuration.credentials,
            clock=clock,
        )
        resumption = Resumption(replica=replica, life=entropy(8).hex(), clock=clock, alone=alone)
        recorder = Recorder(
            orders=orders,
            accounts=accounts,
            profiles=profiles,
            clock=clock,
            measures=measures,
            attempt=resumption.attempt,
            alone=alone,
        )
        cancellation = Cancellation(orders=orders, clock=clock)
        caa = CAA(lookup=CAALookup(records), profiles=profiles, links=links, clock=clock, measures=measures)
        worker = Worker(
            validators=validators, permit=caa.proven, recorder=recorder, clock=clock, measures=measures, pace=pace
        )
        reliance = Reliance(orders=orders, proofs=proofs, alone=alone, clock=clock)
        issuers = Issuers(secrets=configuration.secrets, namespace=namespace)
        finalizer = Finalizer(
            orders=orders,
            accounts=accounts,
            profiles=profiles,
            reliance=reliance,
            credentials=credentials,
            known_keys=known_keys,
            inventory=inventory,
            issuers=issuers,
            caa=caa,
            links=links,
            alone=alone,
            clock=clock,
            measures=measures,
        )
        renewals = Renewals(inventory=inventory, authorities=configuration.authorities, clock=clock)
        opener = Opener(
            store=orders,
            accounts=accounts,
            profiles=profiles,
            credentials=credentials,
            limits=limits,
            population=order_population,
            proofs=proofs,
            renewals=renewals,
            worker=worker,
            objection=objection,
            clock=clock,
            entropy=entropy,
            measures=measures,
        )
        account_service = Accounts(
            store=accounts,
            credentials=credentials,
            inventory=inventory,
            population=account_population,
            alone=alone,
            clock=clock,
            on_deactivated=cancellation.begin,
        )
        order_follower = Follower(
            cluster,
            ORDERS,
            namespaces=namespaces,
            on_change=orders.followed,
            on_gap=_each((orders.forget, order_survey.missed)),
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
                opener=opener,
                worker=worker,
                resumption=resumption,
                finalizer=finalizer,
                reliance=reliance,
                alone=alone,
                clock=clock,
                page=orders_page,
            ),
            renewals=renewals,
            revocations=Revocations(
                orders=orders,
                accounts=account_service,
                inventory=inventory,
                proofs=ListedProofs(orders=orders, clock=clock),
                clock=clock,
            ),
            publication=Publication(
                authorities=configuration.authorities,
                inventory=inventory,
                changes=changes,
                issuers=issuers,
                # Until the watch has begun, the inventory says itself that it is not complete.
                interrupted=lambda: order_follower.interrupted() if order_follower.following.is_set() else 0.0,
                clock=clock,
            ),
            worker=worker,
            cancellation=cancellation,
            caa=caa,
            account_store=accounts,
            order_store=orders,
            known_keys=known_keys,
            inventory=inventory,
            order_population=order_population,
            account_population=account_population,
            sweeper=Sweeper(
                cluster,
                profiles=configuration.profiles,
                namespaces=namespaces,
                known=order_survey.done,
                clock=clock,
                measures=measures,
            ),
            unfinished=unfinished,
            proofs=proofs,
            account_survey=account_survey,
            order_survey=order_survey,
            account_follower=Follower(
                cluster,
                ACCOUNTS,
                namespaces=namespaces,
                on_change=accounts.followed,
                on_gap=_each((accounts.forget, account_survey.missed)),
            ),
            order_follower=order_follower,
        )


def _each(callbacks: Iterable[Callable[[], None]]) -> Callable[[], None]:
    chosen = tuple(callbacks)

    def call() -> None:
        for callback in chosen:
            callback()

    return call
