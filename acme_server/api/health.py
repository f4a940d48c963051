"""Whether the process lives (/healthz) and whether it can serve (/readyz)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from acme_server.api.context import READINESS
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


ROUTES = (get("/healthz", healthy), get("/readyz", ready))
