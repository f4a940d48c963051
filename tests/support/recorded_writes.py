"""An API server over TLS that accepts and records writes of one kind."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

from e2e.load.writes import Endpoint


@dataclass(frozen=True, slots=True)
class Written:
    """A write and its answer."""

    method: str
    path: str
    body: dict[str, Any]
    size: int
    status: int


@asynccontextmanager
async def recorded_writes(
    *, refuse: str = "", refusal: int = 409, metrics: Callable[[], str] = str
) -> AsyncIterator[tuple[Endpoint, list[Written]]]:
    """As in Kubernetes, each write creates a new version, and a write to an older version is answered with 409.

    Writes with the method `refuse` are answered with `refusal`; /metrics is answered with what `metrics` returns.
    """
    written: list[Written] = []
    versions: dict[str, str] = {}

    async def handle(request: web.Request) -> web.Response:
        text = await request.read()
        body = json.loads(text)
        name, metadata = body["metadata"]["name"], body["metadata"]
        current = request.method != refuse and metadata.get("resourceVersion") == versions.get(name)
        status = (201 if request.method == "POST" else 200) if current else refusal
        written.append(Written(request.method, request.path, body, len(text), status))
        versions[name] = metadata["resourceVersion"] = str(len(written))
        return web.json_response(body, status=status)

    async def tell(_request: web.Request) -> web.Response:
        return web.Response(text=metrics())

    application = web.Application()
    application.router.add_get("/metrics", tell)
    application.router.add_route("*", "/{path:.*}", handle)
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    server = TestServer(application)
    await server.start_server(ssl=tls)
    try:
        url = f"https://127.0.0.1:{server.port}"
        yield Endpoint(server=url, token="t", authority=authority.cert_pem.bytes().decode()), written
    finally:
        await server.close()
