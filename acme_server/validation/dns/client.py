"""Looks up names at the configured DNS servers and nowhere else.

Names are complete: there is no search list, no hosts file, and no cache, so a certificate rests on what DNS says now.
A server that cannot answer is followed by the next one; if none can, the lookup has failed, which never means "there
are no records". Every query has a socket of its own, which the kernel binds to a random port and on which it accepts
the server's messages only; with the random ID of the query that is what an off-path attacker has to guess (RFC 5452).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import dns.name
import dns.rcode
from dns.rdata import Rdata
from dns.resolver import NoResolverConfiguration
from dns.resolver import Resolver as SystemConfiguration

from acme_server.validation.caa_rules import Property
from acme_server.validation.dns import messages
from acme_server.validation.dns.messages import (
    MAXIMUM_ALIASES,
    MalformedResponse,
    Query,
    RecordType,
    Response,
    UnrelatedMessage,
)
from kms.address import Address, IPAddress
from kms.clock import Entropy, system_entropy

TIMEOUT = 2.0
"""Seconds for one server to answer."""
ROUNDS = 2
"""How often the list of servers is tried."""
MAXIMUM_MESSAGE = 16 * 1024
"""Octets of a response by TCP: hundreds of records, and few enough to be parsed in a moment."""
_MAXIMUM_DATAGRAM = 4096
_MAXIMUM_ADDRESSES = 16

_EDNS_UNKNOWN = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP})
"""How a server answers that does not know EDNS: FORMERR by RFC 6891, older ones also NOTIMP."""
_NXDOMAIN = "the name does not exist (NXDOMAIN)"

T_co = TypeVar("T_co", covariant=True)


class LookupFailed(Exception):
    """A lookup without a result. The message says why, without naming the servers."""


class Records(NamedTuple, Generic[T_co]):
    """The records of a name; `name_exists` tells a name without such records from one that does not exist."""

    name_exists: bool
    values: tuple[T_co, ...]


class Resolver:
    """Asks `servers`, IP addresses with ports, in their order, and the next one where one does not answer."""

    def __init__(
        self,
        servers: Sequence[Address],
        *,
        entropy: Entropy = system_entropy,
        timeout: float = TIMEOUT,
        rounds: int = ROUNDS,
    ) -> None:
        self.servers = tuple(servers)
        self._entropy = entropy
        self._timeout = timeout
        self._rounds = rounds

    @classmethod
    def build(cls, servers: Sequence[Address], *, resolv_conf: str = "/etc/resolv.conf") -> Resolver:
        """A resolver that asks the configured servers; without any, those of the system.

        Raises OSError if the system has none, and ValueError for a server that is not an IP address.
        """
        chosen = tuple(servers) or system_servers(resolv_conf)
        for each in chosen:
            ipaddress.ip_address(each.host)
        return cls(chosen)

    async def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """Look up the addresses of a DNS name, IPv6 first (RFC 8555 leaves the choice; IPv4 is the fallback).

        Raises LookupFailed if there are none, or no server can answer.
        """
        owner = _parse(name)
        other = asyncio.create_task(self._try_lookup(owner, "A"))
        try:
            results = await self._try_lookup(owner, "AAAA"), await other
        finally:
            other.cancel()
        records = [each for each in results if not isinstance(each, LookupFailed)]
        if found := [address for each in records for address in messages.addresses(each.values)]:
            return tuple(dict.fromkeys(found))[:_MAXIMUM_ADDRESSES]
        if not all(each.name_exists for each in records):
            raise LookupFailed(_NXDOMAIN)
        for each in results:
            if isinstance(each, LookupFailed):
                raise each
        raise LookupFailed("the name has no address (no A and no AAAA records)")

    async def txt(self, name: str) -> Records[bytes]:
        """Look up the TXT records of a DNS name, each as one string. Raises LookupFailed."""
        found = await self._lookup(_parse(name), "TXT")
        return Records(found.name_exists, messages.texts(found.values))

    async def caa(self, name: str) -> Records[Property]:
        """Look up the CAA records of the DNS name itself. Raises LookupFailed."""
        found = await self._lookup(_parse(name), "CAA")
        return Records(found.name_exists, messages.properties(found.values))

    async def _try_lookup(self, owner: dns.name.Name, type_: RecordType) -> Records[Rdata] | LookupFailed:
        """The records, or why they could not be looked up."""
        try:
            return await self._lookup(owner, type_)
        except LookupFailed as error:
            return error

    async def _lookup(self, owner: dns.name.Name, type_: RecordType) -> Records[Rdata]:
        """Look up the records, and follow aliases that the servers do not follow."""
        for _ in range(MAXIMUM_ALIASES):
            response = await self._ask(owner, type_)
            if response.alias is None:
                exists = response.rcode == dns.rcode.NOERROR
                return Records(exists, response.records if exists else ())
            owner = response.alias
        raise LookupFailed("it has too many aliases (CNAME)")

    async def _ask(self, name: dns.name.Name, type_: RecordType) -> Response:
        """The response of the first server that can answer. Raises LookupFailed, with the last failure."""
        failure = "no DNS server answered in time"
        for server in self.servers * self._rounds:
            try:
                async with asyncio.timeout(self._timeout):
                    response = await _exchange(server, self._query(name, type_, edns=True))
                    if response.rcode in _EDNS_UNKNOWN:  # RFC 6891, 7
                        response = await _exchange(server, self._query(name, type_, edns=False))
            except TimeoutError:
                continue
            except OSError:
                failure = "the DNS servers cannot be reached"
            except (ValueError, EOFError):
                failure = "the DNS servers sent malformed responses"
            else:
                if response.rcode in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
                    return response
                # SERVFAIL is also the answer where the validation of DNSSEC failed.
                failure = f"the DNS servers answered {dns.rcode.to_text(dns.rcode.Rcode.make(response.rcode))}"
        raise LookupFailed(failure)

    def _query(self, name: dns.name.Name, type_: RecordType, *, edns: bool) -> Query:
        # Each attempt has an ID of its own: a late response to an earlier one does not match it.
        return messages.build_query(name, type_, int.from_bytes(self._entropy(2), "big"), edns=edns)


def _parse(name: str) -> dns.name.Name:
    """Raises LookupFailed."""
    try:
        return messages.parse_name(name)
    except ValueError as error:
        raise LookupFailed("it is not a valid DNS name") from error


async def _exchange(server: Address, query: Query) -> Response:
    """Ask one server by UDP, and by TCP if UDP has no room. Raises OSError, EOFError and ValueError."""
    response = await _ask_by_udp(server, query)
    if response.truncated:
        response = messages.read_response(await _ask_by_tcp(server, query.wire), query)
        if response.truncated:
            raise MalformedResponse("truncated by TCP")
    return response


async def _ask_by_udp(server: Address, query: Query) -> Response:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as endpoint:
        endpoint.setblocking(False)
        endpoint.connect((server.host, server.port))
        endpoint.send(query.wire)
        while True:
            try:
                return messages.read_response(await loop.sock_recv(endpoint, _MAXIMUM_DATAGRAM), query)
            except UnrelatedMessage:
                continue  # the response may still come


async def _ask_by_tcp(server: Address, query: bytes) -> bytes:
    """One query by TCP (RFC 7766)."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(struct.pack("!H", len(query)) + query)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        if length > MAXIMUM_MESSAGE:
            raise MalformedResponse("too long")
        return await reader.readexactly(length)
    finally:
        writer.close()


def system_servers(path: str) -> tuple[Address, ...]:
    """The DNS servers of the system. Raises OSError if it has none."""
    try:
        configuration = SystemConfiguration(path)
    except NoResolverConfiguration as error:
        raise OSError("the system has no DNS servers; name one with --dns-server") from error
    return tuple(Address(str(each), configuration.port) for each in configuration.nameservers)
