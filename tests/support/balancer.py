"""A load balancer as a Service is one: each connection goes to the next server that is ready, and nothing is sticky."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import aiohttp

from e2e.cluster.ports import LOOPBACK
from e2e.programs import Server
from tests.support.eventually import in_background

_LOOK = 0.2
"""Seconds between two looks at /readyz."""


class Balancer:
    """Passes connections on. What a server breaks off, it breaks off too: to its client it hides nothing."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._ready = list(servers)
        self._turn = 0
        self.accepted = 0
        """Connections so far."""

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to a server, until either side ends it."""
        self.accepted += 1
        server = self._next()
        try:
            if server is None:
                return
            upstream_reader, upstream_writer = await asyncio.open_connection(LOOPBACK, server.port)
            try:
                await asyncio.wait(
                    [
                        asyncio.create_task(_copied(reader, upstream_writer)),
                        asyncio.create_task(_copied(upstream_reader, writer)),
                    ],
                    return_when=asyncio.ALL_COMPLETED,
                )
            finally:
                upstream_writer.close()
        except OSError:
            pass  # a server that is gone: its client meets a connection that ends
        finally:
            writer.close()

    async def look(self) -> None:
        """Keep knowing who is ready; runs until it is cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                answers = await asyncio.gather(*(_is_ready(session, each) for each in self._servers))
                self._ready = [each for each, ready in zip(self._servers, answers, strict=True) if ready]
                await asyncio.sleep(_LOOK)

    def serves(self, server: Server) -> bool:
        """Whether connections go to that server."""
        return server in self._ready

    def _next(self) -> Server | None:
        if not self._ready:
            return None
        self._turn += 1
        return self._ready[self._turn % len(self._ready)]


@asynccontextmanager
async def balancing(servers: Sequence[Server]) -> AsyncIterator[tuple[Balancer, str]]:
    """A balancer in front of these servers, and the address where it listens."""
    balancer = Balancer(servers)
    listening = await asyncio.start_server(balancer.pass_on, LOOPBACK, 0)
    async with in_background(balancer.look()):
        port = listening.sockets[0].getsockname()[1]
        try:
            yield balancer, f"https://{LOOPBACK}:{port}"
        finally:
            listening.close()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, and hand that on. Also a writer whose peer is gone ends it."""
    with suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def _is_ready(session: aiohttp.ClientSession, server: Server) -> bool:
    try:
        async with session.get(f"http://{LOOPBACK}:{server.metrics_port}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False
