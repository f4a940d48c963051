"""The public sockets: a limit on connections, and deadlines for clients that send nothing.

aiohttp has neither. So this module accepts connections, counts them before TLS costs anything, and hands them to
aiohttp, which closes idle ones.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from kms.address import Address

logger = logging.getLogger(__name__)

MAXIMUM_CONNECTIONS = 2048
KEEP_ALIVE = 95.0
"""Seconds that a connection may be idle. Go clients close theirs after 90: so it is the client that closes."""
_BACKLOG = 512
_OUT_OF_FILES_PAUSE = 0.1

SILENT: web.AppKey[set[RequestHandler]] = web.AppKey("silent", set)
"""Connections that have not sent a request yet."""


class HTTPLog(logging.LoggerAdapter[logging.Logger]):
    """The logger of aiohttp, which would quote malformed requests: they may contain secrets, or flood the log."""

    def exception(self, msg: object, *args: object, exc_info: Any = True, **kwargs: Any) -> None:
        """Log malformed HTTP without its content; log other errors in full."""
        if isinstance(exc_info, HttpProcessingError):
            self.logger.info("malformed HTTP", extra={"error": type(exc_info).__name__})
            return
        super().exception(msg, *args, exc_info=exc_info, **kwargs)


class Listener:
    """Accepts connections for an aiohttp server, TLS ones where there is a `context`."""

    def __init__(
        self,
        *,
        server: web.Server,
        context: ssl.SSLContext | None,
        silent: set[RequestHandler],
        on_refused: Callable[[], None],
        maximum: int = MAXIMUM_CONNECTIONS,
        handshake_deadline: float = 10.0,
        first_request_deadline: float = 10.0,
    ) -> None:
        """The deadlines are in seconds, from the accepted connection and from the handshake."""
        self._server = server
        self._context = context
        self._silent = silent
        self._on_refused = on_refused
        self._maximum = maximum
        self._handshake_deadline = handshake_deadline
        self._first_request_deadline = first_request_deadline
        self._handshakes: set[asyncio.Task[None]] = set()

    def count(self) -> int:
        """The number of open connections, including those in a handshake."""
        return len(self._server.connections) + len(self._handshakes)

    async def accept(self, listening: socket.socket) -> None:
        """Accept connections until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except ConnectionError:
                continue  # the client has gone
            except OSError as error:
                logger.warning("cannot accept connections", extra={"error": str(error)})
                await asyncio.sleep(_OUT_OF_FILES_PAUSE)
                continue
            if self.count() >= self._maximum:
                connection.close()
                self._on_refused()
                continue
            handshake = loop.create_task(self._open(connection))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    async def _open(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handler = self._server()  # kept: uvloop returns its own TLS protocol instead
        self._silent.add(handler)
        try:
            await loop.connect_accepted_socket(
                lambda: handler,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=None if self._context is None else self._handshake_deadline,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            logger.debug("handshake failed", extra={"error": str(error)})
            connection.close()
            self._silent.discard(handler)
            return
        loop.call_later(self._first_request_deadline, self._close_if_silent, handler)

    def _close_if_silent(self, handler: RequestHandler) -> None:
        if handler in self._silent:
            self._silent.discard(handler)
            handler.force_close()


def listen(address: Address) -> socket.socket:
    """A listening socket; without a host, for IPv6 and IPv4. Raises OSError."""
    host = address.host
    if not host and socket.has_dualstack_ipv6():
        listening = socket.create_server(
            ("", address.port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
        )
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, address.port), family=family, backlog=_BACKLOG)
    listening.setblocking(False)
    return listening
