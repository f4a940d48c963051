"""The DNS servers that are configured, and how one of them is asked: by UDP, and by TCP where that has no room.

Every exchange has a socket of its own, which the kernel binds to a random port and lets only the server answer on; with
the random id of the query that is what an attacker beside the path has to guess (RFC 5452).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable, Sequence

from dns.resolver import NoResolverConfiguration
from dns.resolver import Resolver as SystemConfiguration

from acme_server.settings import Address as ServerAddress
from acme_server.validation.dns.wire import RCODES

TIMEOUT = 2.0
"""Seconds for one server to answer."""
ROUNDS = 2
"""How often the list of servers is gone through."""
MAXIMUM_MESSAGE = 16 * 1024
"""Octets of an answer by TCP: hundreds of records, and few enough to be read in a moment."""
_MAXIMUM_DATAGRAM = 4096

SILENT = "no DNS server has answered in time"
UNREACHABLE = "the DNS servers cannot be reached"
BROKEN = "DNS answers are broken"
NOT_A_NAME = "it is not a name that DNS can have"
ENDLESS = "its aliases (CNAME) go on and on"


class LookupFailed(Exception):
    """A lookup that found nothing: the message says why, without naming our servers."""


def system_servers(path: str = "/etc/resolv.conf") -> tuple[ServerAddress, ...]:
    """The DNS servers of the system. Raises OSError where it has none."""
    try:
        configuration = SystemConfiguration(path)
    except NoResolverConfiguration as error:
        raise OSError("the system has no DNS servers; name one with --dns-server") from error
    return tuple(ServerAddress(str(each), configuration.port) for each in configuration.nameservers)


def configured_servers(servers: Sequence[ServerAddress]) -> tuple[ServerAddress, ...]:
    """The configured servers; without any, the system's. Raises OSError and ValueError."""
    chosen = tuple(servers) or system_servers()
    for each in chosen:
        ipaddress.ip_address(each.host)  # a name would have to be resolved by somebody: ValueError
    return chosen


def cannot_tell(rcode: int) -> str:
    """What an answer means that is neither yes nor no; SERVFAIL is also what a failed DNSSEC validation looks like."""
    return f"the DNS servers cannot tell ({RCODES.get(rcode, f'rcode {rcode}')})"


async def by_udp(server: ServerAddress, queries: Iterable[bytes], is_last: Callable[[bytes], bool]) -> None:
    """Send the queries over one socket and hand over what comes back, until `is_last` says that this was all."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as endpoint:
        endpoint.setblocking(False)
        endpoint.connect((server.host, server.port))
        for each in queries:
            endpoint.send(each)
        while not is_last(await loop.sock_recv(endpoint, _MAXIMUM_DATAGRAM)):
            pass


async def by_tcp(server: ServerAddress, query: bytes) -> bytes:
    """The answer to one query by TCP (RFC 7766). Raises OSError and EOFError; ValueError for one that is too long."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(struct.pack("!H", len(query)) + query)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        if length > MAXIMUM_MESSAGE:
            raise ValueError("an answer that is too long")
        return await reader.readexactly(length)
    finally:
        writer.close()
