"""A listener with a trivial HTTP server behind it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trustme
from aiohttp import web

from acme_server.api.listener import Listener, listen
from acme_server.api.tls import ServingCertificate
from kms.address import Address
from tests.support.eventually import in_background

CA = trustme.CA()


@dataclass
class Listening:
    listener: Listener
    port: int
    refused: list[int]
    requests: list[web.Request]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context()
        CA.configure_trust(context)
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="127.0.0.1")

    async def get(self, *, plain: bool = False) -> bytes:
        if plain:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        else:
            reader, writer = await self.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = await reader.read()
        writer.close()
        return text


@asynccontextmanager
async def listening(maximum: int = 10, *, plain: bool = False, **deadlines: float) -> AsyncIterator[Listening]:
    requests: list[web.Request] = []
    silent: set[web.RequestHandler] = set()

    async def answer(request: web.BaseRequest) -> web.Response:
        silent.discard(request.protocol)
        return web.Response(text="hello")

    certificate = ServingCertificate()
    issued = CA.issue_cert("127.0.0.1")
    certificate.load(issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes(), source="x")
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    refused: list[int] = []
    assert runner.server is not None
    made = Listener(
        server=runner.server,
        context=None if plain else certificate.context,
        silent=silent,
        on_refused=lambda: refused.append(1),
        maximum=maximum,
        **deadlines,
    )
    with listen(Address("127.0.0.1", 0)) as listening_socket:
        async with in_background(made.accept(listening_socket)):
            yield Listening(made, listening_socket.getsockname()[1], refused, requests)
    await runner.cleanup()
