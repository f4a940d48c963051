"""The guarded network: fetches a small document from a host that anybody may have chosen (SEC43-SEC46).

Each hop looks its name up once, drops the addresses that may not be contacted, and connects to one of the very
addresses that were checked; so a name that answers differently the next time gains nothing (rebinding). What is said
about a failure names the identifier, its address and the kind of the failure, and nothing that came over the wire.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from acme_server.problems import ProblemType
from acme_server.validation import http1, targets
from acme_server.validation.addresses import Address, AddressFilter
from acme_server.validation.attempts import ValidationFailed
from acme_server.validation.resolver import LookupFailed, Resolver
from acme_server.validation.targets import Target

DEADLINE = 10.0
"""Seconds for everything: lookups, connections, redirects, the body (SEC45)."""
CONNECT = 3.0
"""Seconds for one address, so that there is time left for another one."""
MAXIMUM_ADDRESSES = 4


@dataclass(frozen=True, slots=True)
class Document:
    """What was fetched in the end. `source` says from where, for people: the identifier's address, or a redirect."""

    status: int
    body: bytes
    source: str


@dataclass(frozen=True, slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    address: Address


class Fetcher:
    """Fetches documents of at most `maximum_body` octets. Raises ValidationFailed, and nothing else."""

    def __init__(
        self,
        *,
        resolver: Resolver,
        addresses: AddressFilter,
        ports: frozenset[int] = targets.PORTS,
        deadline: float = DEADLINE,
        connect: float = CONNECT,
    ) -> None:
        self._resolver = resolver
        self._addresses = addresses
        self._ports = ports
        self._deadline = deadline
        self._connect = connect
        self._tls = _unverified()

    async def fetch(self, target: Target, *, maximum_body: int) -> Document:
        """What is at the target, or where that redirects to (at most ten times, RFC 8555, 8.3; SEC44)."""
        try:
            async with asyncio.timeout(self._deadline):
                return await self._follow(target, maximum_body)
        except TimeoutError:
            raise ValidationFailed(
                ProblemType.CONNECTION,
                f"Fetching {target.url} took longer than {self._deadline:g} seconds.",
                temporary=True,
            ) from None

    async def _follow(self, first: Target, maximum_body: int) -> Document:
        target = first
        for hop in range(targets.MAXIMUM_REDIRECTS + 1):
            response, source = await self._get(target, hop, maximum_body)
            if response.status not in targets.STATUSES:
                return Document(response.status, response.body, source)
            if response.location is None:
                raise ValidationFailed(ProblemType.INCORRECT_RESPONSE, f"{source} redirects to nowhere.")
            try:
                target = targets.redirected(target, response.location, ports=self._ports)
            except ValidationFailed as failure:
                raise ValidationFailed(
                    ProblemType.INCORRECT_RESPONSE, f"{source} cannot be used: {failure.problem.detail}."
                ) from None
        raise ValidationFailed(
            ProblemType.INCORRECT_RESPONSE, f"{first.url} redirects more than {targets.MAXIMUM_REDIRECTS} times."
        )

    async def _get(self, target: Target, hop: int, maximum_body: int) -> tuple[http1.Response, str]:
        """The answer of one hop, and in words where it comes from."""
        async with self._connected(target, hop) as connection:
            source = _source(target, hop, connection.address)
            try:
                connection.writer.write(http1.request(target.host, target.path))
                return await http1.response(connection.reader, maximum_body=maximum_body), source
            except http1.InvalidResponse as error:
                raise ValidationFailed(
                    ProblemType.INCORRECT_RESPONSE, f"The answer of {source} cannot be used: {error}."
                ) from None
            except (OSError, EOFError):
                raise ValidationFailed(
                    ProblemType.CONNECTION, f"{source} closed the connection before it had answered.", temporary=True
                ) from None

    @asynccontextmanager
    async def _connected(self, target: Target, hop: int) -> AsyncIterator[_Connection]:
        """A connection to the first of the target's addresses that takes it: IPv6, then IPv4."""
        connection = await self._open(target, hop, await self._permitted(target, hop))
        try:
            yield connection
        finally:
            # Not a polite end: whoever is there may take as long over one as he likes.
            connection.writer.transport.abort()

    async def _permitted(self, target: Target, hop: int) -> list[Address]:
        """The addresses of the target that may be contacted. Raises ValidationFailed where there are none."""
        found = await self._lookup(target, hop)
        objections = {address: self._addresses.objection(address) for address in found}
        permitted = [address for address, objection in objections.items() if objection is None]
        if not permitted:
            reasons = ", ".join(f"{_shown(address, hop)} ({objection})" for address, objection in objections.items())
            raise ValidationFailed(
                ProblemType.CONNECTION,
                f"{_who(target, hop)} has no address that may be contacted: {reasons}.",
            )
        return permitted[:MAXIMUM_ADDRESSES]

    async def _lookup(self, target: Target, hop: int) -> tuple[Address, ...]:
        if target.name.type == "ip":
            return (ipaddress.ip_address(target.name.value),)
        try:
            return await self._resolver.addresses(target.name.value)
        except LookupFailed as error:
            raise ValidationFailed(
                ProblemType.DNS, f"The DNS lookup (A, AAAA) of {_who(target, hop)} failed: {error}.", temporary=True
            ) from None

    async def _open(self, target: Target, hop: int, addresses: list[Address]) -> _Connection:
        failures: list[str] = []
        for address in addresses:
            try:
                async with asyncio.timeout(self._connect):
                    reader, writer = await asyncio.open_connection(
                        str(address),
                        target.port,
                        limit=http1.MAXIMUM_LINE,
                        ssl=self._tls if target.scheme == "https" else None,
                        server_hostname=target.name.value if target.scheme == "https" else None,
                    )
            except ssl.SSLError:
                raise ValidationFailed(
                    ProblemType.TLS, f"The TLS handshake with {_source(target, hop, address)} failed."
                ) from None
            except (OSError, TimeoutError) as error:
                failures.append(f"{_shown(address, hop)} port {target.port}: {_reason(error)}")
            else:
                return _Connection(reader, writer, address)
        raise ValidationFailed(
            ProblemType.CONNECTION,
            f"Connecting to {_who(target, hop)} failed: {'; '.join(failures)}.",
            temporary=True,
        )


def _unverified() -> ssl.SSLContext:
    """TLS for redirects to https: nothing is known yet about who is there, so its certificate says nothing (SEC44)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _who(target: Target, hop: int) -> str:
    # Where a redirect leads was chosen by what we fetched, so it is not repeated.
    return target.name.value if hop == 0 else f"the host of redirect {hop}"


def _shown(address: Address, hop: int) -> str:
    return str(address) if hop == 0 else "an address"


def _source(target: Target, hop: int, address: Address) -> str:
    return f"{target.url} ({address})" if hop == 0 else f"the target of redirect {hop}"


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
