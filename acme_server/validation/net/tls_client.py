"""TLS with somebody of whom nothing is known: a handshake of bounded length, and a few bytes after it.

OpenSSL takes chains of a hundred kilobytes and parses them at one go: a tenth of a second, for those who mean it.
Neither ssl nor asyncio has a limit to set, so the handshake is driven here, from memory to memory.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

MAXIMUM_HANDSHAKE = 24 * 1024
"""Octets that are taken in before the handshake is done: certificates with the longest keys take a third of it."""
MAXIMUM_DATA = 64 * 1024
"""Octets of content that are taken in altogether."""
_PART = 16 * 1024

# Exchanging keys with elliptic curves takes a millisecond. The groups of finite fields are the server's to choose, and
# the largest that OpenSSL takes keep the event loop busy for a quarter of a second.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES"


def unverified(*protocols: str) -> ssl.SSLContext:
    """For servers whose certificate proves nothing about who they are.

    At least TLS 1.2; `protocols` are offered by ALPN.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


class HandshakeTooLong(ssl.SSLError):
    """The server has sent more than a handshake may have."""


@dataclass(eq=False)
class Secured:
    """TLS over the two streams of a connection that somebody else opens and ends."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    context: ssl.SSLContext
    server_name: str
    session: ssl.SSLObject = field(init=False)

    def __post_init__(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = self.context.wrap_bio(self._incoming, self._outgoing, server_hostname=self.server_name)

    async def handshake(self) -> None:
        """Agree on keys. Raises SSLError, and OSError where the server is gone before that."""
        left = MAXIMUM_HANDSHAKE
        while not self._agreed():
            data = await self.reader.read(left)
            if not data:
                raise ConnectionResetError("closed during the handshake")
            left -= len(data)
            if not left:
                raise HandshakeTooLong("more than a handshake has")
            self._incoming.write(data)

    def _agreed(self) -> bool:
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()  # also the alert that says what we did not like
        return True

    def send(self, data: bytes) -> None:
        """Send a little content."""
        self.session.write(data)
        self._flush()

    async def receive(self, into: asyncio.StreamReader) -> None:
        """Take in content until it ends, or there is too much of it."""
        left = MAXIMUM_DATA
        while left > 0:
            try:
                content = self.session.read(_PART)
            except ssl.SSLWantReadError:
                if await self._more():
                    continue
                break
            except ssl.SSLError:  # ended, or no TLS any more
                break
            if not content:
                break
            into.feed_data(content)
            left -= len(content)
        into.feed_eof()

    async def _more(self) -> bool:
        try:
            data = await self.reader.read(_PART)
        except OSError:
            return False
        self._incoming.write(data)
        return bool(data)

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self.writer.write(data)
