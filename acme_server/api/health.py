"""Liveness (/healthz), readiness (/readyz) and metrics (/metrics)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from acme_server.api.context import Context
from acme_server.api.readiness import Readiness
from acme_server.api.request import Request
from acme_server.api.routing import get
from acme_server.metrics import Metrics


def liveness(readiness: Readiness) -> web.Response:
    """200, or 503 if another worker of the container hangs."""
    if not readiness.is_alive():
        return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="a worker does not answer\n")
    return web.Response(text="ok\n")


def readiness(readiness: Readiness) -> web.Response:
    """200 when requests can be served, else 503 with the reasons."""
    if readiness.shutting_down:
        return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="shutting down\n")
    missing = readiness.missing()
    if missing:
        text = "".join(f"waiting for {each}\n" for each in missing)
        return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text=text)
    return web.Response(text="ok\n")


def exposition(metrics: Metrics) -> web.Response:
    """The metrics for Prometheus."""
    return web.Response(body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def healthy(_: Request, context: Context) -> web.Response:
    """Answer whether the server lives."""
    return liveness(context.readiness)


async def ready(_: Request, context: Context) -> web.Response:
    """Answer whether the server can serve."""
    return readiness(context.readiness)


ROUTES = (get("/healthz", healthy), get("/readyz", ready))
