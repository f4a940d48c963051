"""Connections to hosts that a client has chosen.

A name is looked up once, the addresses that must not be contacted are dropped, and the connection goes to one of the
addresses that were checked; so a name that resolves differently the next time gains nothing (DNS rebinding). Problem
details name the identifier, its address and the kind of failure, and nothing that came over the wire.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass
from typing import Self

from acme_server.problems import ProblemType
from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.dns.client import LookupFailed, Resolver
from acme_server.validation.net.address_filter import AddressFilter
from acme_server.validation.net.tls_client import HandshakeTooLong, TLSStream
from kms.address import IPAddress
from kms.pki.names import Name

DEADLINE = 10.0
"""Seconds for one attempt to validate."""
CONNECT = 3.0
"""Seconds for one address, handshake included, which leaves time for another address."""
MAXIMUM_ADDRESSES = 4
_BUFFER = 8 * 1024
"""Octets that a stream buffers before they are read."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A host and port to connect to. `label` names it in problem details; `hidden`: its addresses are not told."""

    name: Name
    port: int
    label: str
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class TLSOptions:
    """The context and the server name of a handshake. `temporary`: a failed handshake is attempted again."""

    context: ssl.SSLContext
    server_name: str
    temporary: bool = False


class Connection:
    """An open connection, its remote address, and its TLS session if it has one. The end of a block aborts it."""

    def __init__(self, address: IPAddress, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.address = address
        self._reader = reader
        self._writer = writer
        self._tls: TLSStream | None = None
        self._receiving: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    @property
    def session(self) -> ssl.SSLObject | None:
        """The TLS session, after its handshake."""
        return None if self._tls is None else self._tls.session

    async def start_tls(self, options: TLSOptions) -> None:
        """Do the TLS handshake. Raises SSLError and OSError."""
        self._tls = TLSStream(self._reader, self._writer, options.context, options.server_name)
        await self._tls.handshake()

    def send_request(self, request: bytes) -> asyncio.StreamReader:
        """Send the request, and return the stream of the response."""
        if self._tls is None:
            self._writer.write(request)
            return self._reader
        self._tls.send(request)
        response = asyncio.StreamReader(limit=_BUFFER)
        self._receiving = asyncio.create_task(self._tls.receive(response))
        return response

    def abort(self) -> None:
        """Close the connection without waiting for the remote side, which may take as long as it likes."""
        if self._receiving is not None:
            self._receiving.cancel()
        self._writer.transport.abort()


class Connector:
    """Opens connections. Raises ValidationFailed, and nothing else."""

    def __init__(self, *, resolver: Resolver, addresses: AddressFilter, timeout: float = CONNECT) -> None:
        self._resolver = resolver
        self._addresses = addresses
        self._timeout = timeout

    async def connect(self, to: Destination, tls: TLSOptions | None = None) -> Connection:
        """A connection to the first address of the destination that accepts it: IPv6, then IPv4."""
        failures: list[str] = []
        for address in await self._permitted_addresses(to):
            try:
                async with asyncio.timeout(self._timeout):
                    return await _open_connection(address, to.port, tls)
            except ssl.SSLError as error:
                raise ValidationFailed(
                    ProblemType.TLS,
                    f"The TLS handshake with {_peer(to, address)} failed{_handshake_failure(error)}.",
                    temporary=tls is not None and tls.temporary,
                ) from None
            except (OSError, TimeoutError) as error:
                failures.append(f"{_show(to, address)} port {to.port}: {_reason(error)}")
        raise ValidationFailed(
            ProblemType.CONNECTION,
            f"Connecting to {to.label} failed: {'; '.join(failures)}.",
            temporary=True,
        )

    async def _permitted_addresses(self, to: Destination) -> list[IPAddress]:
        """The addresses that may be contacted. Raises ValidationFailed if there are none."""
        found = await self._resolve(to)
        objections = {address: self._addresses.objection(address) for address in found}
        permitted = [address for address, objection in objections.items() if objection is None]
        if not permitted:
            reasons = ", ".join(f"{_show(to, address)} ({objection})" for address, objection in objections.items())
            raise ValidationFailed(
                ProblemType.CONNECTION,
                f"{to.label} has no address that may be contacted: {reasons}.",
            )
        return permitted[:MAXIMUM_ADDRESSES]

    async def _resolve(self, to: Destination) -> tuple[IPAddress, ...]:
        if to.name.type == "ip":  # it is never looked up
            return (ipaddress.ip_address(to.name.value),)
        try:
            return await self._resolver.addresses(to.name.value)
        except LookupFailed as error:
            raise ValidationFailed(
                ProblemType.DNS, f"The DNS lookup (A, AAAA) of {to.label} failed: {error}.", temporary=True
            ) from None


async def _open_connection(address: IPAddress, port: int, tls: TLSOptions | None) -> Connection:
    reader, writer = await asyncio.open_connection(str(address), port, limit=_BUFFER)
    connection = Connection(address, reader, writer)
    try:
        if tls is not None:
            await connection.start_tls(tls)
    except BaseException:
        connection.abort()
        raise
    return connection


def _peer(to: Destination, address: IPAddress) -> str:
    return to.label if to.hidden else f"{to.label} ({address}) port {to.port}"


def _show(to: Destination, address: IPAddress) -> str:
    return "an address" if to.hidden else str(address)


_NO_PROTOCOL = "NO_APPLICATION_PROTOCOL"
_HANDSHAKE_FAILURES = (
    (_NO_PROTOCOL, "the server does not support the protocol offered by ALPN"),
    ("UNRECOGNIZED_NAME", "the server does not know the name"),
    ("PROTOCOL_VERSION", "the server does not support TLS 1.2 or newer"),
    ("UNSUPPORTED_PROTOCOL", "the server does not support TLS 1.2 or newer"),
    ("WRONG_VERSION_NUMBER", "the server did not answer with TLS"),
    ("HANDSHAKE_FAILURE", "the server has no certificate or cipher for this connection"),
    ("INTERNAL_ERROR", "the server reported an internal error"),
)
"""Descriptions of failures by the reasons that OpenSSL gives, so that no text of the server is repeated."""


def _handshake_failure(error: ssl.SSLError) -> str:
    if isinstance(error, HandshakeTooLong):
        return ": the server sent too much"
    name = error.reason or ""
    if not name and "no application protocol" in str(error):  # an alert without a name in Python
        name = _NO_PROTOCOL
    return next((f": {description}" for part, description in _HANDSHAKE_FAILURES if part in name), "")


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
