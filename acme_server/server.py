"""The server: the applications on top of the services, and the tasks beside them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import get_args

import aiohttp
from aiohttp import web

from acme_server.api.application import acme_application, internal_application, plain_application
from acme_server.api.context import Context
from acme_server.api.readiness import Readiness
from acme_server.api.tls import ServingCertificate
from acme_server.audit.configuration import ConfigurationChanges
from acme_server.audit.stream import AuditStream, open_stream
from acme_server.informers import Informers
from acme_server.metrics import Metrics
from acme_server.nonces import Nonces
from acme_server.replicas import Replicas, slice_of_workers
from acme_server.settings import ServerSettings
from acme_server.siblings import Siblings
from acme_server.state.expiry import ExpiryCounts
from acme_server.state.suspensions import Suspensions
from acme_server.tasks import Work, run_together
from acme_server.urls import URLs
from acme_server.wiring import Configuration, Environment, Services, Validation
from kms.clock import system_clock, system_entropy
from kms.cluster.client import Cluster
from kms.cluster.leader_election import LeaderElection
from kms.contract import default_http_url, lease_name
from kms.issuers import KeyStores
from kms.resources.core import EndpointSlice, Secret
from kms.resources.credentials import EABCredential
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, POLICIES, PROFILES
from kms.resources.orders import AuthorityType
from kms.resources.profiles import CertificateProfile
from kms.resources.secret_names import NONCE_SECRET


@dataclass(frozen=True, slots=True)
class Server:
    """All that runs in the process. `acme` and `plain` are for the world, `internal` for the cluster."""

    acme: web.Server
    plain: web.Server
    internal: web.Application
    certificate: ServingCertificate
    metrics: Metrics
    readiness: Readiness
    services: Services
    audit: AuditStream
    works: dict[str, Work]

    @classmethod
    def build(
        cls,
        settings: ServerSettings,
        cluster: Cluster,
        *,
        metrics: Metrics,
        session: aiohttp.ClientSession,
        key_stores: KeyStores,
    ) -> Server:
        """Wire the server. It sends nothing and listens nowhere before `works` run. Needs the running event loop.

        Raises OSError if the file of the audit stream cannot be opened.
        """
        nonces = Nonces(clock=system_clock, entropy=system_entropy)
        certificate = ServingCertificate()

        def on_secret(secret: Secret, deleted: bool) -> None:  # noqa: FBT001 - the signature that informers call
            if secret.metadata.namespace != settings.namespace or deleted:
                return
            if secret.metadata.name == settings.nonce_secret:
                nonces.use(secret.data.get(NONCE_SECRET, b""))
            elif secret.metadata.name == settings.serving_secret and settings.tls_certificate is None:
                certificate.load_secret(secret)

        def on_credential(credential: EABCredential, deleted: bool) -> None:  # noqa: FBT001 - likewise
            services.record_keeper.notice(credential, deleted)
            changes.notice(CREDENTIALS, credential, deleted)

        def on_profile(profile: CertificateProfile, deleted: bool) -> None:  # noqa: FBT001 - likewise
            services.garbage_collector.notice(profile, deleted)
            changes.notice(PROFILES, profile, deleted)

        informers = Informers(
            settings,
            cluster,
            on_secret=on_secret,
            on_credential=on_credential,
            on_profile=on_profile,
            on_policy=lambda policy, deleted: changes.notice(POLICIES, policy, deleted),
            on_authority=lambda authority, deleted: changes.notice(AUTHORITIES, authority, deleted),
        )
        workers = settings.worker_addresses()
        replicas = Replicas(
            nonces=nonces,
            slices=_slices(informers, slice_of_workers(workers)),
            session=session,
            clock=system_clock,
            entropy=system_entropy,
        )
        # In a pod, the host is named after the pod: the same after a restart.
        replica = f"{socket.gethostname()}:{settings.listen.port}" + (f"#{settings.worker}" if settings.worker else "")
        urls = URLs(
            settings.external_url,
            http_url=settings.http_url or default_http_url(settings.external_url, settings.http_listen.port),
        )
        audit = AuditStream(open_stream(settings.audit_log, turns=settings.turns), replica=replica, clock=system_clock)
        changes = ConfigurationChanges(audit, is_due=lambda: election.leading and informers.synced())
        services = Services.build(
            cluster,
            settings,
            urls=urls,
            configuration=Configuration(
                profiles=informers.profiles,
                policies=informers.policies,
                authorities=informers.authorities,
                credentials=informers.credentials,
                secrets=informers.secrets,
                labels_of=informers.namespaces.labels_of,
            ),
            validation=Validation.build(settings.validation),
            environment=Environment(
                replica=replica,
                is_sole_writer=replicas.is_sole_writer,
                all_read_references=replicas.all_read_references,
                metrics=metrics,
                key_stores=key_stores,
                audit=audit,
            ),
        )
        election = LeaderElection(
            cluster,
            namespace=settings.namespace,
            name=lease_name(settings.service_name, "server"),
            identity=replica,
            clock=system_clock,
        )
        Suspensions(services.state.account_index, audit, is_due=lambda: election.leading)
        readiness = Readiness()
        readiness.require(informers.conditions | services.state.conditions)
        readiness.require({"nonce key": lambda: nonces.ready, "serving certificate": certificate.loaded.is_set})
        siblings = Siblings(workers[1:] if settings.worker == 0 else (), session=session)
        readiness.require(siblings.conditions)
        readiness.is_alive = siblings.alive
        informers.report_to(metrics)
        services.state.report_to(metrics)
        for type_ in get_args(AuthorityType):
            metrics.watch_issuances(type_, partial(services.issuance.count, type_))
        metrics.watch_pending_revocations(services.propagation.__len__)
        metrics.watch_leading(lambda: election.leading)
        works: dict[str, Work] = {
            "garbage collection and records": partial(
                election.run,
                partial(
                    run_together,
                    services.garbage_collector.run,
                    services.record_keeper.run,
                    services.request_sweep.run,
                    *([services.notifications.delivery.run] if services.notifications is not None else []),
                ),
            ),
            "revocation records": partial(services.recorder.run, lambda: election.leading),
            "unfinished orders": partial(services.unfinished_orders.run, services.orders.finish),
            "external CAs": services.external.issuers.run,
            "revocations of external CAs": partial(services.propagation.run, lambda: election.leading),
            "cancellation of orders": services.cancellation.run,
            "events": services.events.run,
            "counts of what ends": ExpiryCounts(
                certificates=services.state.certificates,
                authorities=informers.authorities.values,
                credentials=informers.credentials.values,
                show=metrics.inventory.show,
                clock=system_clock,
            ).run,
            "peers": replicas.run,
            "workers": siblings.run,
            "event loop delay": metrics.measure_loop_delay,
        }
        if services.notifications is not None:
            works["refusals for receivers"] = services.notifications.refused.run
        if settings.tls_certificate is not None and settings.tls_private_key is not None:
            files = settings.tls_certificate, settings.tls_private_key
            works["serving certificate"] = partial(certificate.follow_files, *files)
        context = Context.build(
            urls=urls,
            nonces=nonces,
            replicas=replicas,
            services=services,
            metrics=metrics,
            readiness=readiness,
            audit=audit,
            list_profiles=settings.list_profiles,
        )
        internal = internal_application(replicas=replicas, metrics=metrics, readiness=readiness)
        return cls(
            acme=acme_application(context),
            plain=plain_application(context),
            internal=internal,
            certificate=certificate,
            metrics=metrics,
            readiness=readiness,
            services=services,
            audit=audit,
            works=informers.works | services.state.works | works,
        )


def _slices(informers: Informers, workers: tuple[EndpointSlice, ...]) -> Callable[[], Collection[EndpointSlice]] | None:
    """Where other replicas are: in other pods, and in this one. None: this is the only replica, for good."""
    if informers.slices is None:
        return (lambda: workers) if workers else None
    others = informers.slices
    return lambda: (*others.values(), *workers)
