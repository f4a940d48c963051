"""TLS with unknown servers: a handshake of bounded length, and a bounded number of bytes after it.

OpenSSL accepts chains of a hundred kilobytes and parses them in one go, which blocks the event loop for a tenth of a
second. Neither ssl nor asyncio can limit that, so the handshake runs here, on memory buffers.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

from kms.tls_groups import CLIENT_GROUPS, restrict_key_exchange

MAXIMUM_HANDSHAKE = 24 * 1024
"""Octets received before the handshake is complete: certificates with the longest keys take a third of it."""
MAXIMUM_DATA = 64 * 1024
"""Octets of content received altogether."""
_PART = 16 * 1024


def unverified_context(*protocols: str) -> ssl.SSLContext:
    """A context that accepts any certificate, for TLS 1.2 or newer. `protocols` are offered by ALPN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    restrict_key_exchange(context, CLIENT_GROUPS)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


class HandshakeTooLong(ssl.SSLError):
    """The server sent more than `MAXIMUM_HANDSHAKE`."""


@dataclass(eq=False)
class TLSStream:
    """TLS over the streams of a connection that the caller opens and closes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    context: ssl.SSLContext
    server_name: str
    session: ssl.SSLObject = field(init=False)

    def __post_init__(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = self.context.wrap_bio(self._incoming, self._outgoing, server_hostname=self.server_name)

    async def handshake(self) -> None:
        """Do the handshake. Raises SSLError, and OSError if the connection is closed before it is complete."""
        left = MAXIMUM_HANDSHAKE
        while not self._advance_handshake():
            data = await self.reader.read(left)
            if not data:
                raise ConnectionResetError("closed during the handshake")
            left -= len(data)
            if not left:
                raise HandshakeTooLong("the handshake is too long")
            self._incoming.write(data)

    def _advance_handshake(self) -> bool:
        """Whether it is complete with the bytes received so far."""
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()  # also an alert
        return True

    def send(self, data: bytes) -> None:
        """Send a little content."""
        self.session.write(data)
        self._flush()

    async def receive(self, into: asyncio.StreamReader) -> None:
        """Receive content until it ends, or exceeds `MAXIMUM_DATA`."""
        left = MAXIMUM_DATA
        while left > 0:
            try:
                content = self.session.read(_PART)
            except ssl.SSLWantReadError:
                if await self._receive_more():
                    continue
                break
            except ssl.SSLError:  # closed, or no longer TLS
                break
            if not content:
                break
            into.feed_data(content)
            left -= len(content)
        into.feed_eof()

    async def _receive_more(self) -> bool:
        try:
            data = await self.reader.read(_PART)
        except OSError:
            return False
        self._incoming.write(data)
        return bool(data)

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self.writer.write(data)
