"""Finds the addresses of a name, asking the configured DNS servers and nobody else.

A and AAAA are asked for at once, over one socket. Names are complete: there is no search list, no hosts file, and
nothing is remembered, so a certificate rests on what DNS says now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from acme_server.settings import Address as ServerAddress
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
from acme_server.validation.dns.wire import (
    MAXIMUM_ALIASES,
    NO_ERROR,
    NO_SUCH_NAME,
    Address,
    Answer,
    InvalidMessage,
    Question,
    RecordType,
    answer,
    question,
    wire_name,
)
from kms.clock import Entropy, system_entropy

_MAXIMUM_ADDRESSES = 16


@dataclass(frozen=True, slots=True)
class _Result:
    """What is known for one type: addresses, or else why there are none."""

    addresses: tuple[Address, ...] = ()
    rcode: int = NO_ERROR
    failure: str | None = None


class Resolver:
    """Asks `servers`, IP addresses with ports, in their order; the next one where one does not answer."""

    def __init__(
        self, servers: Sequence[ServerAddress], *, entropy: Entropy = system_entropy, timeout: float = TIMEOUT
    ) -> None:
        self._servers = tuple(servers)
        self._entropy = entropy
        self._timeout = timeout

    async def addresses(self, name: str) -> tuple[Address, ...]:
        """The addresses of a DNS name, IPv6 first (RFC 8555 leaves the choice; IPv4 is the fallback).

        Raises LookupFailed where there are none or no server can tell.
        """
        try:
            wanted = wire_name(name)
        except (InvalidMessage, UnicodeError) as error:
            raise LookupFailed(NOT_A_NAME) from error
        results = await self._results(wanted)
        found = [each for type_ in (RecordType.AAAA, RecordType.A) for each in results[type_].addresses]
        if found:
            return tuple(dict.fromkeys(found))[:_MAXIMUM_ADDRESSES]
        raise LookupFailed(_absence(results.values()))

    async def _results(self, name: bytes) -> dict[RecordType, _Result]:
        """What there is for both types, following aliases that the servers leave to us."""
        results: dict[RecordType, _Result] = {}
        names = dict.fromkeys(RecordType, name)
        for _ in range(MAXIMUM_ALIASES):
            answers = await self._ask({type_: each for type_, each in names.items() if type_ not in results})
            for type_, each in answers.items():
                if isinstance(each, str):
                    results[type_] = _Result(failure=each)
                elif each.alias is None:
                    results[type_] = _Result(each.addresses if each.rcode == NO_ERROR else (), each.rcode)
                else:
                    names[type_] = each.alias
            if len(results) == len(RecordType):
                return results
        raise LookupFailed(ENDLESS)

    async def _ask(self, names: dict[RecordType, bytes]) -> dict[RecordType, Answer | str]:
        """For every type the answer of the first server that has one, else what has failed."""
        answers: dict[RecordType, Answer] = {}
        failure = SILENT
        for server in self._servers * ROUNDS:
            open_ = [self._question(name, type_) for type_, name in names.items() if not _final(answers.get(type_))]
            if not open_:
                break
            try:
                await self._ask_server(server, open_, answers)
            except (OSError, ValueError, EOFError) as error:
                failure = UNREACHABLE if isinstance(error, OSError) else BROKEN
        return {type_: answers.get(type_, failure) for type_ in names}

    def _question(self, name: bytes, type_: RecordType) -> Question:
        return question(name, type_, int.from_bytes(self._entropy(2), "big"))

    async def _ask_server(
        self, server: ServerAddress, questions: Sequence[Question], answers: dict[RecordType, Answer]
    ) -> None:
        """Put the answers of one server into `answers`, as many as come in time."""
        try:
            async with asyncio.timeout(self._timeout):
                await _by_udp(server, questions, answers)
                for each in questions:
                    if answers[each.type].truncated:
                        del answers[each.type]
                        answers[each.type] = await _by_tcp(server, each)
        except TimeoutError:
            return


def _final(known: Answer | None) -> bool:
    """Whether another server need not be asked: it says yes, or that there is nothing; not that it cannot tell."""
    return known is not None and known.rcode in {NO_ERROR, NO_SUCH_NAME}


async def _by_udp(server: ServerAddress, questions: Sequence[Question], answers: dict[RecordType, Answer]) -> None:
    pending = list(questions)

    def is_last(datagram: bytes) -> bool:
        for asked in pending:  # not by the id alone: now and then two questions draw the same one
            try:
                answers[asked.type] = answer(datagram, asked)
            except InvalidMessage:
                continue  # whoever sent it, it is no answer to this question
            pending.remove(asked)
            break
        return not pending

    await by_udp(server, [each.wire for each in questions], is_last)


async def _by_tcp(server: ServerAddress, asked: Question) -> Answer:
    """The answer to one question by TCP, where UDP had no room for it."""
    found = answer(await by_tcp(server, asked.wire), asked)
    if found.truncated:
        raise InvalidMessage("truncated even by TCP")
    return found


def _absence(results: Collection[_Result]) -> str:
    """Why there is no address, from what is known for each type."""
    codes = {each.rcode for each in results}
    if NO_SUCH_NAME in codes:
        return "the name does not exist (NXDOMAIN)"
    if failures := sorted(codes - {NO_ERROR}):
        return cannot_tell(failures[0])
    for each in results:
        if each.failure is not None:
            return each.failure
    return "the name has no address (no A and no AAAA records)"


def configured(servers: Sequence[ServerAddress]) -> Resolver:
    """A resolver for the configured servers; without any, for the system's."""
    return Resolver(configured_servers(servers))
