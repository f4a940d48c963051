"""DNS messages about TXT and CAA records (RFC 1035, RFC 6672, RFC 8659), read by dnspython. Pure.

dnspython knows every shape of these records, and they are rare enough that its price does not matter: about 0.2 ms for
each lookup. What it is given is bounded before, so that no answer keeps it busy for long.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdata import Rdata
from dns.rdtypes.ANY.CAA import CAA
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.DNAME import DNAME
from dns.rdtypes.ANY.TXT import TXT

from acme_server.validation.caa_rules import Property
from acme_server.validation.dns.wire import (
    MAXIMUM_ALIASES,
    MAXIMUM_RECORDS,
    NO_ERROR,
    UDP_PAYLOAD,
    InvalidMessage,
    wire_name,
)

RecordKind = Literal["TXT", "CAA"]

_HEADER = struct.Struct("!HHHHHH")


class BrokenAnswer(InvalidMessage):
    """An answer to the query that cannot be read; waiting for another one would be in vain."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query as it is sent."""

    message: dns.message.Message
    name: dns.name.Name
    wire: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """What a server answers: the records, or `alias`, the end of a chain of aliases that it did not follow itself."""

    rcode: int
    truncated: bool
    records: tuple[Rdata, ...] = ()
    alias: dns.name.Name | None = None


def record_name(name: str) -> dns.name.Name:
    """The complete name. `name` is a DNS name in A-labels; raises ValueError for what DNS cannot have."""
    return dns.name.from_wire(wire_name(name), 0)[0]


def query(name: dns.name.Name, kind: RecordKind, id_: int) -> Query:
    """A recursive query; a resolver that validates DNSSEC does so, and answers SERVFAIL where that fails."""
    message = dns.message.make_query(name, kind, use_edns=0, payload=UDP_PAYLOAD, id=id_)
    return Query(message, name, message.to_wire())


def read(wire: bytes, asked: Query) -> Reading:
    """Read the answer to the query.

    Raises InvalidMessage for what answers something else, and its kind BrokenAnswer for an answer that is malformed.
    """
    message = _parsed(wire, question_only=True)
    if message is None or not asked.message.is_response(message):
        raise InvalidMessage("not an answer to the query")
    if message.flags & dns.flags.TC:  # what is there may be incomplete: it is read again by TCP
        return Reading(message.rcode(), truncated=True)
    if sum(_HEADER.unpack_from(wire)[3:]) > MAXIMUM_RECORDS:
        raise BrokenAnswer("too many records")
    message = _parsed(wire)
    if message is None:
        raise BrokenAnswer("malformed records")
    return _reached(message, asked)


def _parsed(wire: bytes, *, question_only: bool = False) -> dns.message.Message | None:
    try:
        return dns.message.from_wire(wire, question_only=question_only)
    except (dns.exception.DNSException, ValueError):
        return None


def _reached(message: dns.message.Message, asked: Query) -> Reading:
    """The records at the end of the chain of aliases that begins at the name that was asked for."""
    kind = asked.message.question[0].rdtype
    rcode = message.rcode()
    owner = asked.name
    for _ in range(MAXIMUM_ALIASES + 1):
        if found := _set(message, owner, kind):
            return Reading(rcode, truncated=False, records=tuple(found))
        target = _target(message, owner)
        if target is None:
            break
        owner = target
    else:
        raise BrokenAnswer("too many aliases")
    # Records of authority say that the server has followed the chain to its end, and found nothing there.
    unfollowed = owner != asked.name and rcode == NO_ERROR and not message.authority
    return Reading(rcode, truncated=False, alias=owner if unfollowed else None)


def _set(message: dns.message.Message, owner: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
    return message.get_rrset(message.answer, owner, dns.rdataclass.IN, kind)


def _target(message: dns.message.Message, owner: dns.name.Name) -> dns.name.Name | None:
    """Where the name is an alias to: by a CNAME of its own, or by a DNAME above it (RFC 6672, 2.2)."""
    if alias := _set(message, owner, dns.rdatatype.CNAME):
        return cast("CNAME", alias[0]).target
    for each in message.answer:
        if each.rdtype == dns.rdatatype.DNAME and each.rdclass == dns.rdataclass.IN and owner != each.name:
            if not owner.is_subdomain(each.name):
                continue
            try:
                return owner.relativize(each.name).concatenate(cast("DNAME", each[0]).target)
            except dns.name.NameTooLong as error:
                raise BrokenAnswer("an alias that is too long") from error
    return None


def texts(records: tuple[Rdata, ...]) -> tuple[bytes, ...]:
    """The values of TXT records, the strings of each joined without anything in between, as RFC 7208, 3.3 does."""
    return tuple(b"".join(cast("TXT", each).strings) for each in records)


def properties(records: tuple[Rdata, ...]) -> tuple[Property, ...]:
    """The properties of CAA records, as they were sent."""
    found = (cast("CAA", each) for each in records)
    return tuple(Property(flags=each.flags, tag=each.tag, value=each.value) for each in found)
