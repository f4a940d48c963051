"""HTTP servers on 127.0.0.0/8 that send exactly the bytes of a test, also hostile ones."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Behaviour = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
"""Answers a request, given its head and the writer."""


@dataclass
class WebServer:
    """A running server: its port, and the heads of all requests."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0


def answering(body: bytes, status: str = "200 OK", *headers: str) -> Behaviour:
    """A well-formed answer."""

    async def behave(_: bytes, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return behave


def redirecting(location: str, status: str = "302 Found") -> Behaviour:
    """A redirect."""
    return answering(b"", status, f"Location: {location}")


def raw(*parts: bytes, pause: float = 0.0) -> Behaviour:
    """Only these bytes, with a pause between the parts."""

    async def behave(_: bytes, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


@asynccontextmanager
async def running_webserver(
    behaviour: Behaviour, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[WebServer]:
    """Run a server with this behaviour."""
    server = WebServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                head = await reader.readuntil(b"\r\n\r\n")
                server.heads.append(head)
                await behaviour(head, writer)
                await writer.drain()
        finally:
            tasks.discard(task)
            writer.transport.abort()

    listening = await asyncio.start_server(serve, host, port, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listening.wait_closed()
