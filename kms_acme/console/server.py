"""Listens on the loopback address, starts and stops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from aiohttp import web

from acme_server.orders.policy import Objection
from kms.clock import Clock
from kms.cluster.client import Cluster
from kms_acme.console.application import Console
from kms_acme.console.changes import Changes
from kms_acme.console.gate import HOST, Gate
from kms_acme.console.inventory import Inventory
from kms_acme.console.pages import Pages


class CannotListen(Exception):
    """The port is in use; the message says so."""


@dataclass(frozen=True, slots=True)
class Running:
    """A console that serves: its URL, and the task that reads, which only ends by an error of ours."""

    url: str
    reading: asyncio.Task[None]


@asynccontextmanager
async def running_console(
    cluster: Cluster, namespace: str | None, *, port: int, about: str, clock: Clock, objection: Objection
) -> AsyncIterator[Running]:
    """A console that serves while the context is open. With port 0, a free one. Raises CannotListen."""
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise CannotListen(f"{HOST}:{port} cannot be used: {os.strerror(error.errno or 0)}") from error
    gate, changes = Gate(listener.getsockname()[1]), Changes()
    inventory = Inventory(cluster, namespace, clock=clock, changes=changes)
    pages = Pages(inventory, cluster, changes, clock=clock, objection=objection)
    # The log of accesses would have the token.
    runner = web.AppRunner(
        Console(gate, pages, changes, about=about).application(), access_log=None, shutdown_timeout=1.0
    )
    reading = asyncio.create_task(inventory.run())
    try:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        yield Running(gate.url, reading)
    finally:
        reading.cancel()
        changes.close()
        await runner.cleanup()
        listener.close()
        with suppress(asyncio.CancelledError):
            await reading


async def serve_until_stopped(
    cluster: Cluster,
    namespace: str | None,
    *,
    port: int,
    about: str,
    clock: Clock,
    objection: Objection,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM. `on_ready` is called with the URL. Raises CannotListen."""
    running = running_console(cluster, namespace, port=port, about=about, clock=clock, objection=objection)
    async with running as console:
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, stopped.set)
        on_ready(console.url)
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait((waiting, console.reading), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
