"""Connections to hosts that anybody may have chosen.

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
from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.dns.client import LookupFailed, Resolver
from acme_server.validation.net import http_client
from acme_server.validation.net.address_filter import Address, AddressFilter
from acme_server.validation.net.tls_client import HandshakeTooLong, Secured
from kms.pki.names import Name

DEADLINE = 10.0
"""Seconds for everything that an attempt does."""
CONNECT = 3.0
"""Seconds for one address, handshake included, so that there is time left for another one."""
MAXIMUM_ADDRESSES = 4
_LIMIT = http_client.MAXIMUM_LINE
"""Octets that are taken in before anybody wants them."""


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


class Connection:
    """An open connection: the address that it goes to, and its TLS session where it has one."""

    def __init__(self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.address = address
        self._reader = reader
        self._writer = writer
        self._secured: Secured | None = None
        self._receiving: asyncio.Task[None] | None = None

    @property
    def session(self) -> ssl.SSLObject | None:
        """The TLS session, after its handshake."""
        return None if self._secured is None else self._secured.session

    async def secure(self, tls: TLS) -> None:
        """Make a TLS connection of it. Raises SSLError and OSError."""
        self._secured = Secured(self._reader, self._writer, tls.context, tls.server_name)
        await self._secured.handshake()

    def ask(self, request: bytes) -> asyncio.StreamReader:
        """Send the request; what comes back can be read from the stream."""
        if self._secured is None:
            self._writer.write(request)
            return self._reader
        self._secured.send(request)
        answer = asyncio.StreamReader(limit=_LIMIT)
        self._receiving = asyncio.create_task(self._secured.receive(answer))
        return answer

    def abort(self) -> None:
        """End it, and not politely: whoever is there may take as long over an end as he likes."""
        if self._receiving is not None:
            self._receiving.cancel()
        self._writer.transport.abort()


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
            connection.abort()

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
        if place.name.type == "ip":  # it is never resolved
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
                    return await _opened(address, place.port, tls)
            except ssl.SSLError as error:
                raise ValidationFailed(
                    ProblemType.TLS,
                    f"The TLS handshake with {_peer(place, address)} failed{_handshake_failure(error)}.",
                    temporary=tls is not None and tls.temporary,
                ) from None
            except (OSError, TimeoutError) as error:
                failures.append(f"{shown(place, address)} port {place.port}: {_reason(error)}")
        raise ValidationFailed(
            ProblemType.CONNECTION,
            f"Connecting to {place.who} failed: {'; '.join(failures)}.",
            temporary=True,
        )


async def _opened(address: Address, port: int, tls: TLS | None) -> Connection:
    reader, writer = await asyncio.open_connection(str(address), port, limit=_LIMIT)
    connection = Connection(address, reader, writer)
    try:
        if tls is not None:
            await connection.secure(tls)
    except BaseException:
        connection.abort()
        raise
    return connection


def _peer(place: Place, address: Address) -> str:
    return place.who if place.hidden else f"{place.who} ({address}) port {place.port}"


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
    ("HANDSHAKE_FAILURE", "the server has no certificate or no cipher for it"),
    ("INTERNAL_ERROR", "the server reported an error of its own"),
)
"""Kinds of failure by OpenSSL's names of them: whatever the server did, only words of ours are told."""


def _handshake_failure(error: ssl.SSLError) -> str:
    if isinstance(error, HandshakeTooLong):
        return ": the server sent too much"
    name = error.reason or ""
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
