"""Liveness (/healthz), readiness (/readyz) and metrics (/metrics)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from acme_server.api.context import METRICS
from acme_server.api.routing import get


class Readiness:
    """Whether this process can serve. Set `shutting_down` when it must not get new clients any more."""

    def __init__(self) -> None:
        self._conditions: dict[str, Callable[[], bool]] = {}
        self.shutting_down = False
        self.is_alive: Callable[[], bool] = lambda: True
        """Whether what this process answers for is alive; that it answers at all says so of itself."""

    def require(self, conditions: Mapping[str, Callable[[], bool]]) -> None:
        """Add conditions by name; /readyz lists the names of those that do not hold."""
        self._conditions |= conditions

    def missing(self) -> Sequence[str]:
        """The names of the conditions that do not hold; empty: ready."""
        return [name for name, holds in self._conditions.items() if not holds()]


READINESS = web.AppKey("readiness", Readiness)


async def healthy(request: web.Request) -> web.Response:
    """Answer 200, or 503 if another worker of the container hangs."""
    if not request.app[READINESS].is_alive():
        return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="a worker does not answer\n")
    return web.Response(text="ok\n")


async def ready(request: web.Request) -> web.Response:
    """Answer 200 when requests can be served, else 503 with the reasons."""
    readiness = request.app[READINESS]
    if readiness.shutting_down:
        return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="shutting down\n")
    missing = readiness.missing()
    if missing:
        text = "".join(f"waiting for {each}\n" for each in missing)
        return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text=text)
    return web.Response(text="ok\n")


async def metrics(request: web.Request) -> web.Response:
    """Show the metrics to Prometheus."""
    return web.Response(body=request.app[METRICS].exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})


ROUTES = (get("/healthz", healthy), get("/readyz", ready))
INTERNAL_ROUTES = (*ROUTES, get("/metrics", metrics))
