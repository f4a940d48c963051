"""The three HTTP applications: ACME over TLS, CRLs without TLS, and probes and metrics for the cluster."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from acme_server.accounts.new_account import NewAccounts
from acme_server.api import (
    account,
    authorization,
    certificate,
    challenge,
    crl,
    directory,
    health,
    landing,
    nonce,
    order,
    renewal_info,
    revocation,
)
from acme_server.api.authentication import MAXIMUM_BODY, Authenticator
from acme_server.api.context import (
    ACCOUNTS,
    AUDIT,
    AUTHENTICATOR,
    CHAINS,
    CRLS,
    METRICS,
    NEW_ACCOUNTS,
    NONCES,
    ON_REFUSED,
    ORDERS,
    PAGES,
    PROFILES,
    RENEWALS,
    REVOCATIONS,
    SERVING_AUTHORITY,
    URLS,
)
from acme_server.api.health import READINESS, Readiness
from acme_server.api.middleware import edge, plain_edge
from acme_server.api.pages import Pages
from acme_server.api.routing import ByShape, Handler, Route
from acme_server.audit.stream import AuditStream
from acme_server.certificates.crl import CRLs
from acme_server.certificates.serving_authority import ServingAuthority
from acme_server.metrics import Metrics
from acme_server.nonces import Nonces
from acme_server.replicas import PATH, Replicas
from acme_server.urls import URLs
from acme_server.wiring import Services
from kms.clock import system_clock
from kms.contract import ACME_PATH

ROUTES = (
    *order.ROUTES,
    *authorization.ROUTES,
    *challenge.ROUTES,
    *certificate.ROUTES,
    *nonce.ROUTES,
    *account.ROUTES,
    *directory.ROUTES,
    *renewal_info.ROUTES,
    *crl.ROUTES,
    *revocation.ROUTES,
    *landing.ROUTES,
    *health.ROUTES,
)
"""All routes of the ACME server."""


def acme_application(
    *,
    urls: URLs,
    nonces: Nonces,
    replicas: Replicas,
    services: Services,
    metrics: Metrics,
    readiness: Readiness,
    audit: AuditStream,
    list_profiles: bool = False,
    body_deadline: float = 10.0,
) -> web.Application:
    """The ACME server, for clients. `body_deadline` is how many seconds a client may take to send a body.

    With `list_profiles`, everybody can read at `/` which profiles there are.
    """
    application = web.Application(middlewares=[edge], client_max_size=MAXIMUM_BODY)
    application[URLS] = urls
    application[NONCES] = nonces
    application[METRICS] = metrics
    application[READINESS] = readiness
    application[AUDIT] = audit
    application[AUTHENTICATOR] = Authenticator(
        profiles=services.profiles,
        accounts=services.accounts,
        nonces=nonces,
        replicas=replicas,
        urls=urls,
        body_deadline=body_deadline,
    )
    application[PAGES] = Pages(
        profiles=services.profiles,
        serving_authority=services.serving_authority,
        worker=services.worker,
        urls=urls,
        clock=system_clock,
        list_profiles=list_profiles,
    )
    application[NEW_ACCOUNTS] = NewAccounts(
        accounts=services.accounts,
        credentials=services.credentials,
        on_wrong_secret=services.notices.on_wrong_secret,
    )
    application[ON_REFUSED] = (
        services.notices.on_refused,
        *([services.notifications.refused.on_refused] if services.notifications is not None else []),
    )
    application[ACCOUNTS] = services.accounts
    application[ORDERS] = services.orders
    application[CHAINS] = services.state.chains
    application[RENEWALS] = services.renewals
    application[PROFILES] = services.profiles
    application[REVOCATIONS] = services.revocations
    application[CRLS] = services.crls
    application[SERVING_AUTHORITY] = services.serving_authority
    _add(application, ROUTES)
    return application


def plain_application(
    *, crls: CRLs, serving_authority: ServingAuthority, metrics: Metrics, readiness: Readiness
) -> web.Application:
    """The application without TLS: CRLs and CA certificates."""
    application = web.Application(middlewares=[plain_edge], client_max_size=MAXIMUM_BODY)
    application[METRICS] = metrics
    application[READINESS] = readiness
    application[CRLS] = crls
    application[SERVING_AUTHORITY] = serving_authority
    _add(application, crl.ROUTES)
    return application


def internal_application(*, replicas: Replicas, metrics: Metrics, readiness: Readiness) -> web.Application:
    """The application for the kubelet, Prometheus and the other replicas: plain HTTP, inside the cluster only."""
    application = web.Application(client_max_size=MAXIMUM_BODY)
    application[METRICS] = metrics
    application[READINESS] = readiness
    _add(application, health.INTERNAL_ROUTES)
    application.router.add_post(PATH, replicas.answer)
    return application


def _add(application: web.Application, routes: Iterable[Route]) -> None:
    resources: dict[str, list[tuple[str, Handler]]] = {}
    for route in routes:
        methods = (route.method, "HEAD") if route.method == "GET" else (route.method,)
        resources.setdefault(route.path, []).extend((method, route.handler) for method in methods)
    directories = ByShape(ACME_PATH)
    application.router.register_resource(directories)
    for path, handlers in resources.items():
        if path.startswith(f"{ACME_PATH}/"):
            directories.add(path, handlers)
        else:
            resource = application.router.add_resource(path)
            for method, handler in handlers:
                resource.add_route(method, handler)
