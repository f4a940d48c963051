"""Connections to hosts that anybody may have chosen (SEC43).

A name is looked up once, the addresses that may not be contacted are dropped, and the connection goes to one of the
very addresses that were checked; so a name that answers differently the next time gains nothing (rebinding). What is
said about a failure names the identifier, its address and the kind of the failure, and nothing that came over the wire.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from acme_server.problems import ProblemType
from acme_server.validation import http1
from acme_server.validation.addresses import Address, AddressFilter
from acme_server.validation.attempts import ValidationFailed
from acme_server.validation.nameservers import LookupFailed
from acme_server.validation.resolver import Resolver
from kms.pki.names import Name

DEADLINE = 10.0
"""Seconds for everything that an attempt does (SEC45)."""
CONNECT = 3.0
"""Seconds for one address, handshake included, so that there is time left for another one."""
MAXIMUM_ADDRESSES = 4
_LIMIT = http1.MAXIMUM_LINE
"""Octets that are taken in before anybody wants them."""

# Exchanging keys with elliptic curves takes a millisecond. The groups of finite fields are the server's to choose, and
# the largest that OpenSSL takes keep the event loop busy for a good part of a second (SEC41).
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES"


@dataclass(frozen=True, slots=True)
class Place:
    """Where to connect to. `who` is what people call it; `hidden`: its addresses are not for them to see."""

    name: Name
    port: int
    who: str
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class TLS:
    """A handshake: with what, and for which name. `temporary`: one that fails may succeed the next time."""

    context: ssl.SSLContext
    server_name: str
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection, and the address that it goes to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    address: Address


class Connector:
    """Opens connections. Raises ValidationFailed, and nothing else."""

    def __init__(self, *, resolver: Resolver, addresses: AddressFilter, connect: float = CONNECT) -> None:
        self._resolver = resolver
        self._addresses = addresses
        self._connect = connect

    @asynccontextmanager
    async def connected(self, place: Place, tls: TLS | None = None) -> AsyncIterator[Connection]:
        """A connection to the first of the place's addresses that takes it: IPv6, then IPv4."""
        connection = await self._open(place, await self._permitted(place), tls)
        try:
            yield connection
        finally:
            # Not a polite end: whoever is there may take as long over one as he likes.
            connection.writer.transport.abort()

    async def _permitted(self, place: Place) -> list[Address]:
        """The addresses of the place that may be contacted. Raises ValidationFailed where there are none."""
        found = await self._lookup(place)
        objections = {address: self._addresses.objection(address) for address in found}
        permitted = [address for address, objection in objections.items() if objection is None]
        if not permitted:
            reasons = ", ".join(f"{shown(place, address)} ({objection})" for address, objection in objections.items())
            raise ValidationFailed(
                ProblemType.CONNECTION,
                f"{place.who} has no address that may be contacted: {reasons}.",
            )
        return permitted[:MAXIMUM_ADDRESSES]

    async def _lookup(self, place: Place) -> tuple[Address, ...]:
        if place.name.type == "ip":  # it is never resolved (IP-M2)
            return (ipaddress.ip_address(place.name.value),)
        try:
            return await self._resolver.addresses(place.name.value)
        except LookupFailed as error:
            raise ValidationFailed(
                ProblemType.DNS, f"The DNS lookup (A, AAAA) of {place.who} failed: {error}.", temporary=True
            ) from None

    async def _open(self, place: Place, addresses: list[Address], tls: TLS | None) -> Connection:
        failures: list[str] = []
        for address in addresses:
            try:
                async with asyncio.timeout(self._connect):
                    reader, writer = await asyncio.open_connection(
                        str(address),
                        place.port,
                        limit=_LIMIT,
                        ssl=tls and tls.context,
                        server_hostname=tls and tls.server_name,
                    )
            except ssl.SSLError as error:
                raise ValidationFailed(
                    ProblemType.TLS,
                    f"The TLS handshake with {place.who} ({shown(place, address)}) port {place.port} failed"
                    f"{_handshake_failure(error)}.",
                    temporary=tls is not None and tls.temporary,
                ) from None
            except (OSError, TimeoutError) as error:
                failures.append(f"{shown(place, address)} port {place.port}: {_reason(error)}")
            else:
                return Connection(reader, writer, address)
        raise ValidationFailed(
            ProblemType.CONNECTION,
            f"Connecting to {place.who} failed: {'; '.join(failures)}.",
            temporary=True,
        )


def unverified(*protocols: str) -> ssl.SSLContext:
    """TLS with somebody of whom nothing is known yet, so that its certificate proves nothing about who it is.

    At least TLS 1.2 (SEC44, ALPN-M5); `protocols` are offered by ALPN.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def shown(place: Place, address: Address) -> str:
    """The address as people may see it."""
    return "an address" if place.hidden else str(address)


_NO_PROTOCOL = "NO_APPLICATION_PROTOCOL"
_HANDSHAKE_FAILURES = (
    (_NO_PROTOCOL, "the server does not speak the protocol that was offered by ALPN"),
    ("UNRECOGNIZED_NAME", "the server does not know the name"),
    ("PROTOCOL_VERSION", "the server does not speak TLS 1.2 or newer"),
    ("UNSUPPORTED_PROTOCOL", "the server does not speak TLS 1.2 or newer"),
    ("WRONG_VERSION_NUMBER", "what answers there is not TLS"),
    ("EXCESSIVE_MESSAGE_SIZE", "the server sent too much"),
    ("HANDSHAKE_FAILURE", "the server has no certificate or no cipher for it"),
    ("INTERNAL_ERROR", "the server reported an error of its own"),
    ("EOF", "the server closed the connection"),
)
"""Kinds of failure by OpenSSL's names of them: whatever the server did, only words of ours are told (SEC46)."""


def _handshake_failure(error: ssl.SSLError) -> str:
    name = "EOF" if isinstance(error, ssl.SSLEOFError) else error.reason or ""
    if not name and "no application protocol" in str(error):  # an alert that Python has no name for
        name = _NO_PROTOCOL
    return next((f": {told}" for part, told in _HANDSHAKE_FAILURES if part in name), "")


def _reason(error: OSError | TimeoutError) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionError():
            return "connection closed"
        case _:
            return "unreachable"
