"""A load balancer like a Service: each connection goes to the next ready server, without session affinity.

Tests run it in their own event loop (`balancing`), measurements in a separate process (`running_balancer`), to measure
its CPU time separately.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import aiohttp
import uvloop

from e2e.cluster import Process
from e2e.cluster.ports import LOOPBACK, free_port
from e2e.cluster.processes import Deadline, last_lines

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT = 30.0
STOP_LIMIT = 5.0
_LOOK = 0.2
"""Seconds between two checks of /readyz."""


class Backend(Protocol):
    """A server on this machine."""

    @property
    def port(self) -> int:
        """The port for clients."""
        ...

    @property
    def metrics_port(self) -> int:
        """The port of /readyz."""
        ...


class Balancer:
    """Forwards connections, and aborts the client's connection if the server aborts its own."""

    def __init__(self, servers: Sequence[Backend]) -> None:
        self._servers = servers
        self._ready = list(servers)
        self._turn = 0
        self.accepted = 0
        """The number of accepted connections."""

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward a connection to a server, until one side closes it."""
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
            pass  # the server has gone: close the connection to the client
        finally:
            writer.close()

    async def look(self) -> None:
        """Check the readiness of the servers until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                answers = await asyncio.gather(*(_is_ready(session, each) for each in self._servers))
                self._ready = [each for each, ready in zip(self._servers, answers, strict=True) if ready]
                await asyncio.sleep(_LOOK)

    def serves(self, server: Backend) -> bool:
        """Whether this server gets connections."""
        return server in self._ready

    def _next(self) -> Backend | None:
        if not self._ready:
            return None
        self._turn += 1
        return self._ready[self._turn % len(self._ready)]


@asynccontextmanager
async def balancing(servers: Sequence[Backend], *, port: int = 0) -> AsyncIterator[tuple[Balancer, str]]:
    """Run a load balancer for these servers; yields it and its address."""
    balancer = Balancer(servers)
    listening = await asyncio.start_server(balancer.pass_on, LOOPBACK, port)
    looking = asyncio.create_task(balancer.look())
    try:
        yield balancer, f"https://{LOOPBACK}:{listening.sockets[0].getsockname()[1]}"
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        listening.close()


class RunningBalancer(NamedTuple):
    """A load balancer in its own process: its address, and the process id of its guard (see e2e.cluster.guard)."""

    address: str
    guard: int


@contextmanager
def running_balancer(servers: Sequence[Backend], *, log: Path) -> Iterator[RunningBalancer]:
    """Run a load balancer in its own process, for the duration of the block.

    Raises:
        TimeoutError: it does not start; the text has the end of its log.
    """
    port = free_port()
    command = (
        sys.executable,
        "-m",
        "e2e.support.balancer",
        str(port),
        *(f"{each.port}:{each.metrics_port}" for each in servers),
    )
    process = Process.start(command, log=log, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        deadline = Deadline(START_LIMIT)
        while not _listens(port):
            if not deadline or process.wait(0.05) is not None:
                raise TimeoutError(f"the load balancer does not start. The end of its log:\n{last_lines(log)}")
        yield RunningBalancer(f"https://{LOOPBACK}:{port}", process.pid)
    finally:
        process.stop(STOP_LIMIT)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


class _Ports(NamedTuple):
    """A server on the command line, as PORT:METRICS_PORT."""

    port: int
    metrics_port: int

    @classmethod
    def parse(cls, text: str) -> _Ports:
        port, metrics_port = map(int, text.split(":"))
        return cls(port, metrics_port)


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until one side closes, then close the writer."""
    with suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def _is_ready(session: aiohttp.ClientSession, server: Backend) -> bool:
    try:
        async with session.get(f"http://{LOOPBACK}:{server.metrics_port}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def _serve(port: int, servers: Sequence[Backend]) -> None:
    async with balancing(servers, port=port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), [_Ports.parse(each) for each in sys.argv[2:]]))
