"""The three HTTP applications: ACME over TLS, CRLs without TLS, and probes and metrics for the cluster.

The first two are low-level servers of aiohttp: its router, middlewares and typed keys would cost a tenth of the calls
of an order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from aiohttp import web

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
from acme_server.api.authentication import MAXIMUM_BODY
from acme_server.api.context import Context
from acme_server.api.edge import edge
from acme_server.api.readiness import Readiness
from acme_server.api.request import Request
from acme_server.api.routing import Router
from acme_server.metrics import Metrics
from acme_server.replicas import PATH, Replicas

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

PLAIN_ROUTES = crl.ROUTES
"""Those without TLS: CRLs and CA certificates."""


def acme_application(context: Context) -> web.Server:
    """The ACME server, for clients. Needs the running event loop."""
    return _server(partial(edge, router=Router(ROUTES), context=context))


def plain_application(context: Context) -> web.Server:
    """The application without TLS. Needs the running event loop."""
    return _server(partial(edge, router=Router(PLAIN_ROUTES), context=context, acme=False))


def internal_application(*, replicas: Replicas, metrics: Metrics, readiness: Readiness) -> web.Application:
    """The application for the kubelet, Prometheus and the other replicas: plain HTTP, inside the cluster only."""

    async def healthy(_: web.Request) -> web.Response:
        return health.liveness(readiness)

    async def ready(_: web.Request) -> web.Response:
        return health.readiness(readiness)

    async def exposition(_: web.Request) -> web.Response:
        return health.exposition(metrics)

    application = web.Application(client_max_size=MAXIMUM_BODY)
    application.add_routes(
        [
            web.get("/healthz", healthy),
            web.get("/readyz", ready),
            web.get("/metrics", exposition),
            web.post(PATH, replicas.answer),
        ]
    )
    return application


def _server(handler: Callable[[Request], Awaitable[web.StreamResponse]]) -> web.Server:
    request = partial(Request, loop=asyncio.get_running_loop(), client_max_size=MAXIMUM_BODY)
    return web.Server(
        # aiohttp's type does not say that the handler gets what the factory makes.
        cast("Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]", handler),
        request_factory=request,
    )
