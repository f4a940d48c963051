"""A TLS server for tls-alpn-01 (RFC 8737), with a challenge certificate for each identifier.

answerer = Answerer()
answerer.add("a.demo.test", key_authorization)
with serving(answerer) as port: ...
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import ssl
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from e2e.support.threads import in_thread

PROTOCOL = "acme-tls/1"
ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")

_NAMES_KEPT = 10_000


def server_name(identifier: str) -> str:
    """The SNI of a validation: the DNS name, or the reverse name of an IP address (RFC 8738, 6)."""
    try:
        return ipaddress.ip_address(identifier).reverse_pointer
    except ValueError:
        return identifier.lower()


class Answerer:
    """The certificates by identifier; thread-safe."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.asked: deque[str | None] = deque(maxlen=_NAMES_KEPT)
        """The last requested server names."""
        self.default = self._context(self._certificate("nobody.invalid", ""))

    def add(self, identifier: str, key_authorization: str) -> None:
        """Present a challenge certificate for a DNS name or an IP address."""
        self._contexts[server_name(identifier)] = self._context(self._certificate(identifier, key_authorization))

    def remove(self, identifier: str) -> None:
        """Remove the challenge certificate of an identifier, if there is one."""
        self._contexts.pop(server_name(identifier), None)

    def choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """Select the certificate for a server name, as the SNI callback."""
        self.asked.append(name)
        if found := self._contexts.get((name or "").lower()):
            connection.context = found

    def _context(self, certificate: x509.Certificate) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols([PROTOCOL])
        private = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with tempfile.NamedTemporaryFile(prefix="tls-alpn-01-") as file:
            file.write(private + certificate.public_bytes(Encoding.PEM))
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def _certificate(self, identifier: str, key_authorization: str) -> x509.Certificate:
        """A self-signed certificate for this identifier, with the critical acmeIdentifier extension (RFC 8737, 3)."""
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(identifier))
        except ValueError:
            name = x509.DNSName(identifier)
        digest = hashlib.sha256(key_authorization.encode()).digest()
        value = x509.UnrecognizedExtension(ACME_IDENTIFIER, bytes((0x04, len(digest))) + digest)
        now, subject = datetime.now(UTC), x509.Name([])
        return (
            x509.CertificateBuilder(subject, subject, self._key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(value, critical=True)
            .sign(self._key, hashes.SHA256())
        )


@asynccontextmanager
async def listening(answerer: Answerer, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Serve handshakes on a port (0: a free one); yields the port. No data follows a handshake.

    Raises:
        OSError: the port is taken.
    """
    answerer.default.sni_callback = answerer.choose
    server = await asyncio.get_running_loop().create_server(
        _Mute, host, port, ssl=answerer.default, ssl_handshake_timeout=10, backlog=1024
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0)  # the loop releases closed transports in its next iteration


def serving(answerer: Answerer, *, host: str = "127.0.0.1", port: int = 0) -> AbstractContextManager[int]:
    """Serve in a thread, for synchronous code."""
    return in_thread(listening(answerer, host=host, port=port), name="tls-alpn-01")


class _Mute(asyncio.Protocol):
    """Sends nothing, and waits until the client closes the connection."""
