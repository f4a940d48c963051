"""The HTTP applications: ACME over TLS, what certificates point to without TLS, and what is for the cluster alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from aiohttp import web

from acme_server.accounts.new_account import AccountRegister, CredentialSource, NewAccounts
from acme_server.api import health
from acme_server.api.authentication import MAXIMUM_BODY, AccountSource, Authenticator, ProfileSource, Redeemer
from acme_server.api.context import (
    ACCOUNTS,
    AUTHENTICATOR,
    METRICS,
    NEW_ACCOUNTS,
    NONCES,
    ORDERS,
    PROFILES,
    PUBLICATION,
    READINESS,
    RENEWALS,
    REVOCATION,
    URLS,
    AccountService,
    OrderService,
    ProfileService,
    PublicationService,
    Readiness,
    RenewalService,
    RevocationService,
)
from acme_server.api.listener import SILENT
from acme_server.api.middleware import edge, plain_edge
from acme_server.api.routes import PLAIN_ROUTES, ROUTES
from acme_server.api.routing import Route
from acme_server.metrics import Metrics
from acme_server.nonces import Nonces
from acme_server.replicas import PATH, Replicas
from acme_server.urls import URLs


class Profiles(ProfileSource, ProfileService, Protocol):
    """All that the edge asks of the profiles."""


class Accounts(AccountSource, AccountRegister, AccountService, Protocol):
    """All that the edge asks of the accounts."""


def acme_application(
    *,
    urls: URLs,
    nonces: Nonces,
    redeemer: Redeemer,
    profiles: Profiles,
    accounts: Accounts,
    credentials: CredentialSource,
    orders: OrderService,
    renewals: RenewalService,
    revocations: RevocationService,
    publication: PublicationService,
    metrics: Metrics,
    readiness: Readiness,
) -> web.Application:
    """What clients talk to."""
    application = web.Application(middlewares=[edge], client_max_size=MAXIMUM_BODY)
    application[URLS] = urls
    application[NONCES] = nonces
    application[METRICS] = metrics
    application[READINESS] = readiness
    application[SILENT] = set()
    application[AUTHENTICATOR] = Authenticator(
        profiles=profiles, accounts=accounts, nonces=nonces, redeemer=redeemer, urls=urls
    )
    application[NEW_ACCOUNTS] = NewAccounts(accounts=accounts, credentials=credentials)
    application[ACCOUNTS] = accounts
    application[ORDERS] = orders
    application[RENEWALS] = renewals
    application[PROFILES] = profiles
    application[REVOCATION] = revocations
    application[PUBLICATION] = publication
    _add(application, ROUTES)
    return application


def plain_application(*, publication: PublicationService, metrics: Metrics, readiness: Readiness) -> web.Application:
    """What is there without TLS, for those who check certificates: no resource of ACME, and nothing to send."""
    application = web.Application(middlewares=[plain_edge], client_max_size=MAXIMUM_BODY)
    application[METRICS] = metrics
    application[READINESS] = readiness
    application[SILENT] = set()
    application[PUBLICATION] = publication
    _add(application, PLAIN_ROUTES)
    return application


def internal_application(*, replicas: Replicas, metrics: Metrics, readiness: Readiness) -> web.Application:
    """What the kubelet, Prometheus and other replicas talk to: plain HTTP, inside the cluster only."""
    application = web.Application(client_max_size=MAXIMUM_BODY)
    application[METRICS] = metrics
    application[READINESS] = readiness
    _add(application, health.INTERNAL_ROUTES)
    application.router.add_post(PATH, replicas.answer)
    return application


def _add(application: web.Application, routes: Iterable[Route]) -> None:
    resources: dict[str, web.Resource] = {}
    for route in routes:
        resource = resources.get(route.path)
        if resource is None:
            resource = resources[route.path] = application.router.add_resource(route.path)
        resource.add_route(route.method, route.handler)
        if route.method == "GET":
            resource.add_route("HEAD", route.handler)
