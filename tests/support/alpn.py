"""TLS servers for tls-alpn-01 on 127.0.0.0/8, with valid or invalid challenge certificates."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

RFC_8737 = "1.3.6.1.5.5.7.1.31"
OBSOLETE = "1.3.6.1.5.5.7.1.30.1"


@cache
def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def digest_of(key_authorization: str) -> bytes:
    """What the acmeIdentifier extension holds, in DER."""
    return b"\x04\x20" + sha256(key_authorization.encode()).digest()


def certificate(
    names: Sequence[x509.GeneralName] | None,
    value: bytes | None,
    *,
    oid: str = RFC_8737,
    critical: bool = True,
    more: Sequence[x509.ExtensionType] = (),
) -> x509.Certificate:
    """A self-signed certificate; without `names` or `value` it lacks that extension."""
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(_key().public_key())
        .serial_number(4711)
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now - timedelta(days=1))  # expired, which does not matter
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if value is not None:
        extension = x509.UnrecognizedExtension(ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=critical)
    for each in more:
        builder = builder.add_extension(each, critical=False)
    return builder.sign(_key(), SHA256())


def serving(*chain: x509.Certificate, protocols: Sequence[str] = ("acme-tls/1",)) -> ssl.SSLContext:
    """A context that presents the chain, and selects one of the protocols."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = _key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem += b"".join(each.public_bytes(Encoding.PEM) for each in chain)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "both.pem")
        path.write_bytes(pem)
        context.load_cert_chain(path)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@dataclass
class Responder:
    """A running responder: its port, the server names that it was asked for, and what it was told after handshakes."""

    port: int = 0
    asked: list[str | None] = field(default_factory=list)
    told: bytearray = field(default_factory=bytearray)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def running_responder(context: ssl.SSLContext, *, host: str = "127.0.0.1") -> AsyncIterator[Responder]:
    """A responder that answers handshakes, and listens to what comes after them."""
    responder = Responder()

    def named(_: ssl.SSLSocket | ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        responder.asked.append(name)

    context.sni_callback = named

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            responder.told += await reader.read()
        except OSError:
            pass  # it has ended without a farewell
        finally:
            responder.ended.set()
            writer.transport.abort()

    listening = await asyncio.start_server(serve, host, 0, ssl=context)
    responder.port = listening.sockets[0].getsockname()[1]
    try:
        yield responder
    finally:
        listening.close()
        await listening.wait_closed()


@asynccontextmanager
async def flooding(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A responder, on the port that this yields, that sends and sends after the handshake, to one client."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                while True:
                    secured.sendall(b"x" * 65536)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
