"""A fast http-01 web server (RFC 8555, 8.3) that can send hostile answers.

    answerer = Answerer()
    answerer.add(token, thumbprint)
    answerer.behave(other_token, Endless())
    with serving(answerer) as port: ...

It uses no HTTP library, so that it takes little CPU time from the server that the load tool measures.
"""

from __future__ import annotations

import asyncio
import gzip
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from e2e.support.threads import in_thread

PREFIX = "/.well-known/acme-challenge/"

_HEAD_LIMIT = 16_384
_REQUESTS_KEPT = 10_000


class Request(NamedTuple):
    """A request; header names are in lowercase."""

    method: str
    path: str
    headers: dict[str, str]


class Reply(Protocol):
    """The answer to a request."""

    def pieces(self) -> Iterator[bytes | float]:
        """The bytes to send and the seconds to wait, in order. After several pieces, the connection is closed."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """A well-behaved response."""

    body: str
    status: int = 200
    content_type: str = "application/octet-stream"

    def pieces(self) -> Iterator[bytes | float]:
        """One piece."""
        yield _response(self.status, self.body.encode(), f"Content-Type: {self.content_type}")


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirection."""

    location: str
    status: int = 302

    def pieces(self) -> Iterator[bytes | float]:
        """One piece."""
        yield _response(self.status, b"", f"Location: {self.location}")


@dataclass(frozen=True, slots=True)
class Compressed:
    """A body that is always compressed; `repeated` turns it into a decompression bomb."""

    body: str
    repeated: int = 1

    def pieces(self) -> Iterator[bytes | float]:
        """One piece."""
        yield _response(200, gzip.compress(self.body.encode() * self.repeated), "Content-Encoding: gzip")


@dataclass(frozen=True, slots=True)
class Endless:
    """A body without an end."""

    chunk: bytes = b"x" * 16_384

    def pieces(self) -> Iterator[bytes | float]:
        """Endless pieces, until the client closes the connection."""
        yield b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        while True:
            yield self.chunk


@dataclass(frozen=True, slots=True)
class Slow:
    """A body one byte at a time, each within the time limit of a single read."""

    body: str
    pause: float = 0.5

    def pieces(self) -> Iterator[bytes | float]:
        """Each byte after a pause."""
        content = self.body.encode()
        yield f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
        for octet in content:
            yield self.pause
            yield bytes((octet,))


@dataclass(frozen=True, slots=True)
class SlowHead:
    """Endless header lines."""

    pause: float = 0.5

    def pieces(self) -> Iterator[bytes | float]:
        """Endless pieces, until the client closes the connection."""
        yield b"HTTP/1.1 200 OK\r\n"
        while True:
            yield self.pause
            yield b"X-Filler: x\r\n"


@dataclass(frozen=True, slots=True)
class Silent:
    """No answer on an open connection."""

    seconds: float = 3600.0

    def pieces(self) -> Iterator[bytes | float]:
        """Only a wait."""
        yield b""
        yield self.seconds


@dataclass(frozen=True, slots=True)
class Raw:
    """These bytes, then the end of the connection; None only closes it."""

    content: bytes = b""

    def pieces(self) -> Iterator[bytes | float]:
        """Two pieces, so that the connection is closed."""
        yield self.content
        yield b""


class Answerer:
    """The answers by token; thread-safe."""

    def __init__(self, *, thumbprint: str | None = None) -> None:
        """With `thumbprint`, every token gets a key authorization of this account."""
        self._default = thumbprint
        self._thumbprints: dict[str, str] = {}
        self._behaviours: dict[str, tuple[Reply, ...]] = {}
        self._asked: dict[str, int] = {}
        self.requests: deque[Request] = deque(maxlen=_REQUESTS_KEPT)
        """The last requests."""

    def add(self, token: str, thumbprint: str) -> None:
        """Answer a token with the key authorization for this thumbprint."""
        self._thumbprints[token] = thumbprint

    def remove(self, token: str) -> None:
        """Answer a token with 404 again."""
        self._thumbprints.pop(token, None)

    def behave(self, target: str, *replies: Reply) -> None:
        """Set the replies for a token, or for a path that starts with "/": one per request; the last one repeats.

        Without replies, the normal answer is restored.
        """
        path = target if target.startswith("/") else PREFIX + target
        self._asked.pop(path, None)
        self._behaviours.pop(path, None)
        if replies:
            self._behaviours[path] = replies

    def reply(self, path: str) -> Reply:
        """The reply for the next request of this path."""
        if replies := self._behaviours.get(path):
            asked = self._asked[path] = self._asked.get(path, 0) + 1
            return replies[min(asked, len(replies)) - 1]
        token = path.removeprefix(PREFIX)
        thumbprint = self._thumbprints.get(token, self._default)
        if token == path or thumbprint is None:
            return Text("nothing here\n", status=404)
        return Text(f"{token}.{thumbprint}")


class _Connection(asyncio.Protocol):
    """A connection with consecutive requests without bodies."""

    def __init__(self, answerer: Answerer, connections: set[_Connection]) -> None:
        self._answerer = answerer
        self._connections = connections
        self._received = b""
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # it is one
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        self._transport.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._task is None and b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            self._answer(_parsed(head))
        if len(self._received) > _HEAD_LIMIT:
            self._transport.close()

    def _answer(self, request: Request) -> None:
        self._answerer.requests.append(request)
        pieces = self._answerer.reply(request.path).pieces()
        first, rest = next(pieces), next(pieces, None)
        if isinstance(first, bytes):
            self._transport.write(first)
        if rest is not None:
            self._task = asyncio.get_running_loop().create_task(self._go_on(rest, pieces))
        elif request.headers.get("connection", "").lower() == "close":
            self._transport.close()

    async def _go_on(self, piece: bytes | float | None, pieces: Iterator[bytes | float]) -> None:
        while piece is not None:
            if isinstance(piece, bytes):
                self._transport.write(piece)
                await self._writable.wait()
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(piece)
            piece = next(pieces, None)
        self._transport.close()


@asynccontextmanager
async def listening(answerer: Answerer, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Serve on a port (0: a free one); yields the port.

    Raises:
        OSError: the port is taken.
    """
    connections: set[_Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answerer, connections), host, port, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for each in tuple(connections):
            each.abort()
        await asyncio.sleep(0)  # the loop releases closed transports in its next iteration


def serving(answerer: Answerer, *, host: str = "127.0.0.1", port: int = 0) -> AbstractContextManager[int]:
    """Serve in a thread, for synchronous code."""
    return in_thread(listening(answerer, host=host, port=port), name="http-01")


def _parsed(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, target = first.partition(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, target.partition(" ")[0].partition("?")[0], headers)


def _response(status: int, body: bytes, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status} -", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join((*lines, "", "")).encode() + body
