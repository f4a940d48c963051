"""Whether the process lives (/healthz), whether it can serve (/readyz), and what it counts (/metrics)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from acme_server.api.context import METRICS, READINESS
from acme_server.api.routing import get


async def healthy(_: web.Request) -> web.Response:
    """Answer; that is all there is to it."""
    return web.Response(text="ok\n")


async def ready(request: web.Request) -> web.Response:
    """Say 200 when requests can be served, else 503 and what is missing."""
    missing = request.app[READINESS].missing()
    if missing:
        text = "".join(f"waiting for {each}\n" for each in missing)
        return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text=text)
    return web.Response(text="ok\n")


async def metrics(request: web.Request) -> web.Response:
    """Show the metrics to Prometheus."""
    return web.Response(body=request.app[METRICS].exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})


ROUTES = (get("/healthz", healthy), get("/readyz", ready))
INTERNAL_ROUTES = (*ROUTES, get("/metrics", metrics))
