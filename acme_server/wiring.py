"""The services, and what they are built from: configuration, validation and environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from acme_server.accounts.client_namespaces import LabelsOf
from acme_server.accounts.eab_credentials import EABCredentials
from acme_server.accounts.record_keeper import RecordKeeper
from acme_server.accounts.service import Accounts
from acme_server.audit.stream import AuditStream, no_stream
from acme_server.certificates.crl import CRLs, RevocationCounter
from acme_server.certificates.propagation import Propagation
from acme_server.certificates.renewal_info import Renewals
from acme_server.certificates.revocation import Revocations
from acme_server.certificates.serving_authority import ServingAuthority
from acme_server.external import External
from acme_server.metrics import Metrics
from acme_server.notifications.delivery import Pace, Post
from acme_server.notifications.post import Poster
from acme_server.notifications.service import Notifications
from acme_server.orders.authorization_reuse import AuthorizationReuse
from acme_server.orders.caa import CAA
from acme_server.orders.cancellation import Cancellation
from acme_server.orders.certificate_storage import CertificateStorage
from acme_server.orders.external_issuance import ExternalIssuance
from acme_server.orders.finalize import OrderFinalization
from acme_server.orders.issuance_admission import IssuanceAdmission
from acme_server.orders.issuing_chains import IssuingChains
from acme_server.orders.new_order import NewOrders
from acme_server.orders.policy import Objection, no_objection
from acme_server.orders.recovery import Recovery, UnfinishedOrders
from acme_server.orders.request_sweep import RequestSweep
from acme_server.orders.service import PAGE, Orders
from acme_server.orders.validation_results import ValidationResults
from acme_server.profiles import Profiles
from acme_server.server_state import State
from acme_server.settings import ServerSettings, ValidationSettings
from acme_server.state.event_recorder import EventRecorder
from acme_server.state.garbage_collector import GarbageCollector
from acme_server.state.notices import Notices
from acme_server.state.refusals import Refusals
from acme_server.state.retention import AFTER_COMPROMISE
from acme_server.state.revocation_recorder import RevocationRecorder
from acme_server.state.turns import Turns
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
from kms.cluster.client import Cluster
from kms.cluster.informer import Informer
from kms.issuers import Issuers, KeyStores
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.credentials import EABCredential
from kms.resources.meta import Key
from kms.resources.orders import ChallengeType
from kms.resources.policies import CertificatePolicy
from kms.resources.profiles import CertificateProfile
from kms.resources.secret_names import serving_authority_name


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
    """How identifiers are validated. `objection` says why an address must not be certified here.

    `post` sends notifications, to addresses that validation may contact; None: none are sent.
    """

    validators: Mapping[ChallengeType, Validator]
    lookup_caa: LookupRecords
    objection: Objection = no_objection
    timing: ValidationTiming | None = None
    post: Post | None = None

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
            post=Poster.build(settings),
        )


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The process. `replica` names its place and survives a restart: in a pod, it is the name of the pod.

    `is_sole_writer` says whether no other replica can have written in the last minute, and `all_read_references`
    whether all replicas of the last minute can read orders that refer to the chain of their certificate.
    """

    replica: str
    is_sole_writer: Callable[[], bool] = lambda: True
    all_read_references: Callable[[], bool] = lambda: True
    clock: Clock = system_clock
    entropy: Entropy = system_entropy
    metrics: Metrics = field(default_factory=Metrics)
    key_stores: KeyStores = field(default_factory=KeyStores.build)
    audit: AuditStream = field(default_factory=no_stream)


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
    serving_authority: ServingAuthority
    worker: Worker
    external: External
    issuance: ExternalIssuance
    request_sweep: RequestSweep
    propagation: Propagation
    cancellation: Cancellation
    caa: CAA
    garbage_collector: GarbageCollector
    record_keeper: RecordKeeper
    recorder: RevocationRecorder
    unfinished_orders: UnfinishedOrders
    events: EventRecorder
    notices: Notices
    notifications: Notifications | None
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
        external: External | None = None,
        orders_page: int = PAGE,
        notification_pace: Pace | None = None,
    ) -> Services:
        """Wire the services and their state. Without `external`, external CAs are asked by the API of the cluster."""
        clock, entropy, metrics = environment.clock, environment.entropy, environment.metrics
        revocations = RevocationCounter()
        events = EventRecorder(cluster=cluster, instance=environment.replica, clock=clock)
        refusals = Refusals(events=events, find_profile=configuration.profiles.get, metrics=metrics)
        notices = Notices(
            events, find_profile=configuration.profiles.get, find_credential=configuration.credentials.get
        )
        state = State.build(
            cluster,
            settings,
            clock=clock,
            is_sole_writer=environment.is_sole_writer,
            all_read_references=environment.all_read_references,
            authorities=configuration.authorities.values,
            on_revocation=revocations.increment,
            on_refused=refusals.report,
            audit=environment.audit,
            on_order=notices.on_order,
        )
        accounts, orders = state.accounts, state.orders
        notifications = validation.post and Notifications.build(
            cluster,
            settings,
            state=state,
            profiles=configuration.profiles.values,
            find_profile=configuration.profiles.get,
            authorities=configuration.authorities.values,
            find_secret=configuration.secrets.get,
            post=validation.post,
            clock=clock,
            entropy=entropy,
            pace=notification_pace,
        )

        def authority_ends(profile: Key) -> datetime:
            """When the last certificate of the profile has ended, which is a year from now or when its CA ends."""
            resource = configuration.profiles.get(*profile)
            issuer = resource and configuration.authorities.get(profile[0], resource.issuer_name)
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
        issuers = Issuers(
            find_secret=configuration.secrets.get, namespace=settings.namespace, key_stores=environment.key_stores
        )
        admission = IssuanceAdmission(
            orders=orders,
            accounts=accounts,
            profiles=profiles,
            credentials=credentials,
            authorization_reuse=authorization_reuse,
            account_keys=state.account_keys,
            certificates=state.certificates,
            caa=caa,
            objection=validation.objection,
            clock=clock,
            metrics=metrics,
        )
        external = external or External.build(
            cluster,
            configuration.authorities,
            find_secret=configuration.secrets.get,
            namespace=settings.namespace,
            wake=lambda request: issuance.wake(request),  # noqa: PLW0108 - it is built later
        )
        storage = CertificateStorage(orders=orders, chains=state.chains)
        issuance = ExternalIssuance(
            orders=orders,
            profiles=profiles,
            storage=storage,
            admission=admission,
            issuers=external.issuers,
            chains=IssuingChains(orders=orders, stored=state.chains, certificates=state.certificates, clock=clock),
            find_authority=configuration.authorities.get,
            process=recovery.attempt,
            clock=clock,
            metrics=metrics,
            pace=external.pace,
            schedule=external.schedule,
        )
        propagation = Propagation(
            orders=orders,
            order_index=state.order_index,
            issuers=external.issuers,
            find_authority=configuration.authorities.get,
            clock=clock,
        )
        finalization = OrderFinalization(
            orders=orders,
            storage=storage,
            admission=admission,
            issuers=issuers,
            external=issuance,
            caa=caa,
            urls=urls,
            quota=state.order_quota,
            clock=clock,
            metrics=metrics,
            on_issuer_failure=notices.on_issuer_failure,
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
                external=issuance,
                authorization_reuse=authorization_reuse,
                turns=turns,
                clock=clock,
                page=orders_page,
            ),
            renewals=renewals,
            revocations=Revocations(
                orders=orders,
                accounts=account_service,
                credentials=credentials,
                certificates=state.certificates,
                recorder=recorder,
                authorizations=state.authorizations,
                propagation=propagation,
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
                find_issuing=issuance.find_issuing,
                recall_issuing=issuance.recall,
                clock=clock,
            ),
            serving_authority=ServingAuthority(
                secrets=configuration.secrets,
                namespace=settings.namespace,
                name=serving_authority_name(settings.service_name),
                clock=clock,
            ),
            worker=worker,
            external=external,
            issuance=issuance,
            request_sweep=RequestSweep(external.requests, orders=orders, clock=clock),
            propagation=propagation,
            cancellation=cancellation,
            caa=caa,
            garbage_collector=GarbageCollector(
                cluster,
                orders=orders,
                accounts=accounts,
                records=state.records,
                account_index=state.account_index,
                chains=state.chains,
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
            events=events,
            notices=notices,
            notifications=notifications,
            state=state,
        )
