"""DNS queries and responses (RFC 1035, RFC 6672, RFC 8659), built and parsed by dnspython. Pure.

Responses are bounded before they are parsed, so that none keeps the event loop busy for long.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdata import Rdata
from dns.rdtypes.ANY.CAA import CAA
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.DNAME import DNAME
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from acme_server.validation.caa_rules import Property
from kms.address import IPAddress

RecordType = Literal["A", "AAAA", "TXT", "CAA"]

UDP_PAYLOAD = 1232
"""Octets of a response by UDP: what passes every link without fragmentation (DNS flag day 2020)."""
MAXIMUM_RECORDS = 100
MAXIMUM_ALIASES = 8

_HEADER = struct.Struct("!HHHHHH")


class UnrelatedMessage(ValueError):
    """A message that is not a response to the query."""


class MalformedResponse(ValueError):
    """A response to the query that cannot be read."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query: the parsed message and its bytes."""

    message: dns.message.Message
    name: dns.name.Name
    type: dns.rdatatype.RdataType
    wire: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """The records of a response, or `alias`: the end of a chain of aliases that the server did not follow."""

    rcode: int
    truncated: bool = False
    records: tuple[Rdata, ...] = ()
    alias: dns.name.Name | None = None


def parse_name(text: str) -> dns.name.Name:
    """Parse a DNS name in A-labels, without a trailing dot. Raises ValueError."""
    try:
        return dns.name.Name([*text.encode("ascii").split(b"."), b""])
    except (dns.exception.DNSException, UnicodeEncodeError) as error:
        raise ValueError("not a DNS name") from error


def build_query(name: dns.name.Name, type_: RecordType, id_: int) -> Query:
    """Build a recursive query. A resolver that validates DNSSEC answers SERVFAIL where that fails."""
    message = dns.message.make_query(name, type_, use_edns=0, payload=UDP_PAYLOAD, id=id_)
    return Query(message, name, message.question[0].rdtype, message.to_wire())


def read_response(wire: bytes, query: Query) -> Response:
    """Read the response to the query. Raises UnrelatedMessage and MalformedResponse."""
    if len(wire) < _HEADER.size:
        raise UnrelatedMessage("not a DNS message")
    _, flags, _, *counts = _HEADER.unpack_from(wire)
    truncated, too_many = bool(flags & dns.flags.TC), sum(counts) > MAXIMUM_RECORDS
    # dnspython collects errors here instead of raising them: that tells a malformed response from an unrelated message.
    message = dns.message.from_wire(wire, question_only=truncated or too_many, continue_on_error=True)
    if not query.message.is_response(message):
        raise UnrelatedMessage("not a response to the query")
    if truncated:  # its records may be incomplete; the client asks again by TCP
        return Response(message.rcode(), truncated=True)
    if too_many:
        raise MalformedResponse("too many records")
    if message.errors:
        raise MalformedResponse("malformed records")
    return _follow_aliases(message, query)


def _follow_aliases(message: dns.message.Message, query: Query) -> Response:
    """Find the records at the end of the chain of aliases that begins at the name of the query."""
    rcode = message.rcode()
    owner = query.name
    for _ in range(MAXIMUM_ALIASES + 1):
        if found := _find(message, owner, query.type):
            return Response(rcode, records=tuple(found))
        target = _target(message, owner)
        if target is None:
            break
        owner = target
    else:
        raise MalformedResponse("too many aliases")
    # With records of authority the server says that it has followed the chain to its end, and found nothing there.
    unfollowed = owner != query.name and rcode == dns.rcode.NOERROR and not message.authority
    return Response(rcode, alias=owner if unfollowed else None)


def _find(message: dns.message.Message, owner: dns.name.Name, type_: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
    return message.get_rrset(message.answer, owner, dns.rdataclass.IN, type_)


def _target(message: dns.message.Message, owner: dns.name.Name) -> dns.name.Name | None:
    """The target of the name's CNAME, or of a DNAME above it (RFC 6672, 2.2)."""
    if alias := _find(message, owner, dns.rdatatype.CNAME):
        return cast("CNAME", alias[0]).target
    for each in message.answer:
        if each.rdtype == dns.rdatatype.DNAME and each.rdclass == dns.rdataclass.IN and owner != each.name:
            if not owner.is_subdomain(each.name):
                continue
            try:
                return owner.relativize(each.name).concatenate(cast("DNAME", each[0]).target)
            except dns.name.NameTooLong as error:
                raise MalformedResponse("an alias that is too long") from error
    return None


def addresses(records: Iterable[Rdata]) -> tuple[IPAddress, ...]:
    """The addresses of A and AAAA records."""
    return tuple(ip_address(cast("A | AAAA", each).address) for each in records)


def texts(records: Iterable[Rdata]) -> tuple[bytes, ...]:
    """The values of TXT records; the strings of each are joined without a separator, as RFC 7208, 3.3 does."""
    return tuple(b"".join(cast("TXT", each).strings) for each in records)


def properties(records: Iterable[Rdata]) -> tuple[Property, ...]:
    """The properties of CAA records, unchanged."""
    found = (cast("CAA", each) for each in records)
    return tuple(Property(flags=each.flags, tag=each.tag, value=each.value) for each in found)
