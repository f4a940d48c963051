"""A listener with a trivial HTTP server behind it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache

import trustme
from aiohttp import web

from acme_server.api.problems import malformed_http
from acme_server.api.tls import ServingCertificate
from e2e.cluster.ports import free_port
from kms.address import Address
from kms.connections import ConnectionLimits
from kms.listener import Deadlines, Listener, accepting, running_listener

CA = trustme.CA()
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@cache
def trust() -> ssl.SSLContext:
    """Clients' context: making one takes tens of milliseconds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    CA.configure_trust(context)
    return context


@dataclass
class Listening:
    """A running listener. `/slow` is answered when `release` is set, `/long` has more than sockets hold."""

    listener: Listener
    port: int
    refused: list[int]
    evicted: list[int]
    release: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets the answers of /slow go."""
    busy: int = 0
    """The number of requests to /slow and /long so far."""

    async def connect(self, *, plain: bool = False, source: str = "127.0.0.1") -> Streams:
        local = (source, 0)
        if plain:
            return await asyncio.open_connection("127.0.0.1", self.port, local_addr=local)
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=trust(), server_hostname="127.0.0.1", local_addr=local
        )

    async def get(self, *, plain: bool = False, source: str = "127.0.0.1") -> bytes:
        reader, writer = await self.connect(plain=plain, source=source)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = await reader.read()
        writer.close()
        return text


async def ask(streams: Streams, path: str = "/") -> bytes:
    """A request on an open connection, and the answer."""
    streams[1].write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return await streams[0].readuntil(b"hello")


@asynccontextmanager
async def listening(
    maximum: int = 10,
    *,
    plain: bool = False,
    limits: ConnectionLimits | None = None,
    deadlines: Deadlines | None = None,
) -> AsyncIterator[Listening]:
    refused: list[int] = []
    evicted: list[int] = []
    made: Listening

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def body(request: web.Request) -> web.Response:
        length = int(request.query.get("read", "-1"))
        await request.content.read(length)
        return web.Response(text="hello")

    async def slow(_: web.Request) -> web.Response:
        made.busy += 1
        await made.release.wait()
        return web.Response(text="hello")

    async def long(_: web.Request) -> web.Response:
        made.busy += 1
        return web.Response(body=bytes(16 * 1024 * 1024))

    application = web.Application()
    application.add_routes(
        [
            web.get("/", answer),
            web.get("/slow", slow),
            web.post("/body", body),
            web.post("/slow", slow),
            web.get("/long", long),
        ]
    )
    certificate = ServingCertificate()
    issued = CA.issue_cert("127.0.0.1")
    certificate.load(issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes(), source="x")
    async with running_listener(
        application,
        drain=0.1,
        limits=limits or ConnectionLimits(maximum, per_address=maximum),
        context=None if plain else certificate.context,
        answer_error=malformed_http,
        on_refused=lambda: refused.append(1),
        on_evicted=lambda: evicted.append(1),
        deadlines=deadlines,
    ) as listener:
        port = free_port()
        async with accepting(listener, Address("127.0.0.1", port)):
            made = Listening(listener, port, refused, evicted)
            yield made
