"""`/healthz`, `/readyz` and `/metrics`, for the kubelet and Prometheus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from kms.address import Address
from kms.connections import ConnectionLimits
from kms.listener import accepting, running_listener
from kms_operator.metrics import Metrics

_LIMITS = ConnectionLimits(maximum=128, per_address=32)


def application(metrics: Metrics, *, not_ready: Callable[[], str | None]) -> web.Application:
    """`not_ready` returns why the operator is not ready, or None. Liveness means that the event loop answers."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        reason = not_ready()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    async def scrape(_request: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", scrape)])
    return app


@asynccontextmanager
async def serving(app: web.Application, address: Address) -> AsyncIterator[None]:
    """Listen at `address` while the block runs. Raises OSError if that fails."""
    async with running_listener(app, drain=1.0, limits=_LIMITS) as listener, accepting(listener, address):
        yield
