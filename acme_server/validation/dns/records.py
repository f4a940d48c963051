"""Finds the TXT and CAA records of a name, asking the configured DNS servers and nobody else.

As with addresses, names are complete and nothing is remembered. A server that cannot tell is followed by the next one;
if none can tell, the lookup has failed, and that never means "there are no records".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import dns.name
from dns.rdata import Rdata

from acme_server.settings import Address as ServerAddress
from acme_server.validation.caa_rules import Property
from acme_server.validation.dns import messages
from acme_server.validation.dns.messages import BrokenAnswer, Query, Reading, RecordKind
from acme_server.validation.dns.servers import (
    BROKEN,
    ENDLESS,
    NOT_A_NAME,
    ROUNDS,
    SILENT,
    TIMEOUT,
    UNREACHABLE,
    LookupFailed,
    by_tcp,
    by_udp,
    cannot_tell,
    configured_servers,
)
from acme_server.validation.dns.wire import MAXIMUM_ALIASES, NO_ERROR, NO_SUCH_NAME, InvalidMessage
from kms.clock import Entropy, system_entropy

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Found(Generic[T_co]):
    """What there is at a name: `exists` says whether there is such a name at all."""

    exists: bool
    values: tuple[T_co, ...]


class RecordSource(Protocol):
    """Where records come from."""

    async def txt(self, name: str) -> Found[bytes]:
        """The TXT records of a DNS name, each as one string. Raises LookupFailed where no server can tell."""
        ...

    async def caa(self, name: str) -> Found[Property]:
        """The CAA records of a DNS name itself. Raises LookupFailed where no server can tell."""
        ...


class Records:
    """Asks `servers`, IP addresses with ports, in their order; the next one where one does not answer."""

    def __init__(
        self, servers: Sequence[ServerAddress], *, entropy: Entropy = system_entropy, timeout: float = TIMEOUT
    ) -> None:
        self._servers = tuple(servers)
        self._entropy = entropy
        self._timeout = timeout

    async def txt(self, name: str) -> Found[bytes]:
        """The TXT records of a DNS name, each as one string. Raises LookupFailed where no server can tell."""
        exists, records = await self._records(name, "TXT")
        return Found(exists, messages.texts(records))

    async def caa(self, name: str) -> Found[Property]:
        """The CAA records of a DNS name itself. Raises LookupFailed where no server can tell."""
        exists, records = await self._records(name, "CAA")
        return Found(exists, messages.properties(records))

    async def _records(self, name: str, kind: RecordKind) -> tuple[bool, tuple[Rdata, ...]]:
        """The records, following aliases that the servers leave to us."""
        try:
            wanted = messages.record_name(name)
        except ValueError as error:
            raise LookupFailed(NOT_A_NAME) from error
        for _ in range(MAXIMUM_ALIASES):
            reading = await self._ask(wanted, kind)
            if reading.alias is None:
                return reading.rcode == NO_ERROR, reading.records if reading.rcode == NO_ERROR else ()
            wanted = reading.alias
        raise LookupFailed(ENDLESS)

    async def _ask(self, name: dns.name.Name, kind: RecordKind) -> Reading:
        """The answer of the first server that has one. Raises LookupFailed, with what has failed last."""
        failure = SILENT
        for server in self._servers * ROUNDS:
            # A query of its own for every attempt: what comes late for an earlier one is no answer to this one.
            asked = messages.query(name, kind, int.from_bytes(self._entropy(2), "big"))
            try:
                async with asyncio.timeout(self._timeout):
                    reading = await _exchange(server, asked)
            except TimeoutError:
                continue
            except OSError:
                failure = UNREACHABLE
            except (ValueError, EOFError):
                failure = BROKEN
            else:
                if reading.rcode in {NO_ERROR, NO_SUCH_NAME}:
                    return reading
                failure = cannot_tell(reading.rcode)
        raise LookupFailed(failure)


async def _exchange(server: ServerAddress, asked: Query) -> Reading:
    """One server's answer. Raises OSError, EOFError, and ValueError for an answer that cannot be read."""
    readings: list[Reading] = []

    def is_last(datagram: bytes) -> bool:
        try:
            readings.append(messages.read(datagram, asked))
        except BrokenAnswer:
            raise
        except InvalidMessage:
            return False  # whoever sent it, it answers nothing that we asked
        return True

    await by_udp(server, [asked.wire], is_last)
    reading = readings[0]
    if reading.truncated:
        reading = messages.read(await by_tcp(server, asked.wire), asked)
        if reading.truncated:
            raise InvalidMessage("truncated even by TCP")
    return reading


def configured_records(servers: Sequence[ServerAddress]) -> Records:
    """A source of records that asks the configured servers; without any, the system's. Raises OSError, ValueError."""
    return Records(configured_servers(servers))
