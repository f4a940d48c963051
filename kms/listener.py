"""The sockets of both programs: limits on connections, and deadlines for clients that send nothing.

aiohttp has neither. So this module accepts connections, counts them before TLS costs anything, and hands them to
aiohttp, which speaks HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from aiohttp import StreamReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from kms.address import Address
from kms.connections import ConnectionLimits, ConnectionTable, NoRoom

logger = logging.getLogger(__name__)

SERVER = "kms-acme"
"""The header Server of each answer: it names neither aiohttp nor Python."""

_BACKLOG = 512
_OUT_OF_FILES_PAUSE = 0.1
# Seconds that clients have to answer the end of a TLS connection, which holds a socket until then.
_TLS_SHUTDOWN = 2.0


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds. `first_request` begins after the TLS handshake; connections are looked at `every` so many seconds."""

    handshake: float = 10.0
    first_request: float = 10.0
    every: float = 1.0


class HTTPLog(logging.LoggerAdapter[logging.Logger]):
    """The logger of aiohttp, which would quote malformed requests: they may contain secrets, or flood the log."""

    def log(self, level: int, msg: object, *args: object, exc_info: Any = None, **kwargs: Any) -> None:
        """Log malformed HTTP without its content; log other errors in full."""
        if isinstance(exc_info, HttpProcessingError):
            self.logger.info("malformed HTTP", extra={"error": type(exc_info).__name__})
            return
        super().log(level, msg, *args, exc_info=exc_info, **kwargs)


_OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "access_log": None,
        "logger": HTTPLog(logger),
        "keepalive_timeout": 3600.0,  # the listener closes idle connections earlier
        "max_line_size": 4096,
        "max_field_size": 4096,
        "max_headers": 64,
        "lingering_time": 2.0,
        "auto_decompress": False,
    }
)
"""Limits against slow and greedy clients."""


class Connection(RequestHandler):
    """A connection of a listener, as aiohttp's protocol."""

    __slots__ = ("_answer_error", "_request", "_socket", "_table", "handshake", "used")

    def __init__(
        self,
        server: web.Server,
        *,
        table: ConnectionTable[Connection],
        answer_error: Callable[[int], web.Response],
    ) -> None:
        """`table` has the connection; `answer_error` is that of Listener."""
        super().__init__(server, loop=asyncio.get_running_loop(), **_OPTIONS)
        self._table = table
        self._answer_error = answer_error
        self._socket: asyncio.Transport | None = None
        self._request: web.BaseRequest | None = None
        self.handshake: asyncio.Task[None] | None = None
        self.used = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport: aiohttp forgets it while it still waits for the client to take the rest."""
        self._socket = cast("asyncio.Transport", transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._socket = None
        self._table.remove(self)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response; then the connection is idle."""
        resp.headers[hdrs.SERVER] = SERVER
        self._request = None
        self._table.wait(self, responding=True)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._table.wait(self, responding=False)

    def begin(self, request: web.BaseRequest, content: StreamReader) -> None:
        """Begin a request: when all of its body has arrived, it no longer waits for the client."""
        self.used = True
        self._request = request
        if content.is_eof():
            self._table.begin_request(self)
        else:
            content.on_eof(lambda: self._arrived(request))

    def _arrived(self, request: web.BaseRequest) -> None:
        if self._request is request:  # it may have been answered before
            self._table.begin_request(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer malformed HTTP, or an error that the application has not answered, in the words of the program."""
        super().handle_error(request, status, exc, message)  # logs it, and raises if the response has begun
        response = self._answer_error(status)
        response.force_close()
        return response

    def abort(self) -> None:
        """Close the connection at once, without waiting for the client."""
        if self._socket is not None:
            self._socket.abort()
        elif self.handshake is not None:
            self.handshake.cancel()

    def close_overdue(self) -> None:
        """Close the connection; at once if the client does not take what was sent."""
        if self._socket is None:
            return  # a handshake has a deadline of its own
        if self._socket.is_closing() or self._socket.get_write_buffer_size():
            self._socket.abort()
        else:
            self.force_close()


def plain_error(status: int) -> web.Response:
    """The answer to malformed HTTP, as text."""
    return web.Response(status=status, text="malformed HTTP\n" if status < 500 else "internal error\n")  # noqa: PLR2004


class Listener:
    """Accepts connections for an aiohttp server, TLS ones where there is a `context`."""

    def __init__(
        self,
        *,
        server: web.Server,
        limits: ConnectionLimits,
        context: ssl.SSLContext | None = None,
        answer_error: Callable[[int], web.Response] = plain_error,
        on_refused: Callable[[], None] = lambda: None,
        on_evicted: Callable[[], None] = lambda: None,
        deadlines: Deadlines | None = None,
    ) -> None:
        """`answer_error` makes the response to malformed HTTP, by its status.

        `on_refused` and `on_evicted` are called when a connection is refused, and closed for another one.
        """
        self._server = server
        self._context = context
        self._answer_error = answer_error
        self._on_refused = on_refused
        self._on_evicted = on_evicted
        self._deadlines = deadlines or Deadlines()
        self._connections: ConnectionTable[Connection] = ConnectionTable(limits, clock=asyncio.get_running_loop().time)
        make = server.request_factory

        def make_request(
            message: RawRequestMessage, payload: StreamReader, protocol: RequestHandler, *rest: Any
        ) -> web.BaseRequest:
            request = make(message, payload, protocol, *rest)
            if isinstance(protocol, Connection):
                protocol.begin(request, payload)
            return request

        server.request_factory = make_request

    def count(self) -> int:
        """The number of open connections, including those in a handshake."""
        return len(self._connections)

    async def accept(self, listening: socket.socket) -> None:
        """Accept connections until it is cancelled."""
        loop = asyncio.get_running_loop()
        closing = loop.create_task(self._close_overdue())
        try:
            while True:
                try:
                    accepted, address = await loop.sock_accept(listening)
                except ConnectionError:
                    continue  # the client has gone
                except OSError as error:
                    logger.warning("cannot accept connections", extra={"error": str(error)})
                    await asyncio.sleep(_OUT_OF_FILES_PAUSE)
                    continue
                self._admit(accepted, address[0])
        finally:
            closing.cancel()

    def _admit(self, accepted: socket.socket, host: str) -> None:
        connection = Connection(self._server, table=self._connections, answer_error=self._answer_error)
        try:
            evicted = self._connections.add(connection, host)
        except NoRoom:
            accepted.close()
            self._on_refused()
            return
        if evicted is not None:
            evicted.abort()
            self._on_evicted()
        connection.handshake = asyncio.get_running_loop().create_task(self._open(connection, accepted))

    async def _open(self, connection: Connection, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        tls = self._context is not None
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._deadlines.handshake if tls else None,
                ssl_shutdown_timeout=_TLS_SHUTDOWN if tls else None,
            )
        except BaseException as error:
            accepted.close()
            self._connections.remove(connection)
            if not isinstance(error, OSError | TimeoutError):  # ssl.SSLError is an OSError
                raise
            logger.debug("handshake failed", extra={"error": str(error)})
        else:
            loop.call_later(self._deadlines.first_request, self._close_if_unused, connection)
        finally:
            connection.handshake = None

    def _close_if_unused(self, connection: Connection) -> None:
        if not connection.used:
            connection.abort()

    async def _close_overdue(self) -> None:
        """Close connections that have been idle, or taken for a request, too long. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(self._deadlines.every)
            for each in self._connections.overdue():
                each.close_overdue()


@asynccontextmanager
async def running_listener(
    application: web.Application | web.Server, *, drain: float, **options: Any
) -> AsyncIterator[Listener]:
    """A listener for an application, which runs while the block runs. It has `drain` seconds to end its requests.

    `options` are those of Listener.
    """
    runner: web.BaseRunner
    if isinstance(application, web.Server):
        runner = web.ServerRunner(application, shutdown_timeout=drain)
    else:
        runner = web.AppRunner(application, shutdown_timeout=drain)
    await runner.setup()
    try:
        if runner.server is None:
            raise RuntimeError("the runner has not been set up")
        yield Listener(server=runner.server, **options)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def accepting(listener: Listener, address: Address, *, shared: bool = False) -> AsyncIterator[asyncio.Task[None]]:
    """Accept connections at `address` while the block runs; `shared`: as other processes may, too. Raises OSError.

    The task never ends by itself, except with an error.
    """
    with listen(address, shared=shared) as listening:
        task = asyncio.create_task(listener.accept(listening))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def listen(address: Address, *, shared: bool = False) -> socket.socket:
    """A listening socket; without a host, for IPv6 and IPv4. Raises OSError.

    Several processes may listen at a `shared` address (SO_REUSEPORT); the kernel spreads connections over them.
    """
    host = address.host
    if not host and socket.has_dualstack_ipv6():
        listening = socket.create_server(
            ("", address.port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True, reuse_port=shared
        )
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, address.port), family=family, backlog=_BACKLOG, reuse_port=shared)
    listening.setblocking(False)
    return listening


def allow_open_files(number: int) -> None:
    """Raise the limit of open files to `number` as far as the hard limit allows; log if that is less.

    Container runtimes often set 1024. Beyond the limit nothing could be connected, not even the API server.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < number:
        logger.warning("the limit of open files is too low", extra={"limit": wanted, "needed": number})
