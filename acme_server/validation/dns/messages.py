"""DNS queries and responses (RFC 1035, RFC 6672, RFC 8659). dnspython parses names and records. Pure.

No response keeps the event loop busy for long. dnspython reads a whole message into sets of records, which takes up to
8 ms for each record with names of 127 labels, and 0.2 ms for each such name. So only the records that count are parsed,
each owner once, and no more names than chains of aliases need; the names of other records are skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Literal, NamedTuple, cast

import dns.exception
import dns.flags
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.wire
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
MAXIMUM_NAMES = 36
"""Names of a response that are parsed: owners and targets of a DNAME and a CNAME for each alias of a chain."""

_EDNS = b"\0" + struct.pack("!HHIH", dns.rdatatype.OPT, UDP_PAYLOAD, 0, 0)
"""A record of EDNS version 0 without options (RFC 6891, 6.1.2)."""
_NO_QUESTION = frozenset({dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED})
"""What a server may answer without repeating the question."""
_ALIASES = frozenset({dns.rdatatype.CNAME, dns.rdatatype.DNAME})

_POINTER = 0xC0
_HEADER = 12
_TO_QUESTION = bytes((_POINTER, _HEADER))
"""The name of the question, as most servers spell it in their records: by a pointer (RFC 1035, 4.1.4)."""
_RESPONSE, _RESPONSE_AND_OPCODE = 0x8000, 0xF800
"""The flag of responses (QR), and what of the flags must be that alone: the opcode of queries is zero."""
_TRUNCATED = int(dns.flags.TC)  # an int: the operators of enumerations are slow

_Answers = Mapping[dns.name.Name, Mapping[int, list[Rdata]]]
"""Records by owner and type."""


class UnrelatedMessage(ValueError):
    """A message that is not a response to the query."""


class MalformedResponse(ValueError):
    """A response to the query that cannot be read."""


class Query(NamedTuple):
    """A query: its parts and its bytes."""

    id: int
    name: dns.name.Name
    type: dns.rdatatype.RdataType
    wire: bytes
    question: bytes
    """The part of `wire` that responses repeat."""


class Response(NamedTuple):
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


def build_query(name: dns.name.Name, type_: RecordType, id_: int, *, edns: bool = True) -> Query:
    """Build a recursive query. A resolver that validates DNSSEC answers SERVFAIL where that fails.

    Without `edns`, a response by UDP has at most 512 octets.

    dnspython's own messages compress names, which takes milliseconds for one of 127 labels.
    """
    rdtype = dns.rdatatype.RdataType[type_]
    header = struct.pack("!HHHHHH", id_, dns.flags.RD, 1, 0, 0, 1 if edns else 0)
    question = (name.to_wire() or b"") + struct.pack("!HH", rdtype, dns.rdataclass.IN)
    return Query(id_, name, rdtype, header + question + (_EDNS if edns else b""), question)


def read_response(wire: bytes, query: Query) -> Response:
    """Read the response to the query. Raises UnrelatedMessage and MalformedResponse."""
    parser = dns.wire.Parser(wire)
    try:
        flags, *counts = _read_header(parser, query)
    except dns.exception.DNSException as error:
        raise UnrelatedMessage("not a DNS message") from error
    if flags & _TRUNCATED:  # its records may be incomplete; the client asks again by TCP
        return Response(_rcode(flags, 0), truncated=True)
    if sum(counts) > MAXIMUM_RECORDS:
        raise MalformedResponse("too many records")
    try:
        answers = _read_answers(parser, counts[0], query)
        rcode = _rcode(flags, _read_extended_flags(parser, counts[1] + counts[2]))
    except dns.exception.DNSException as error:
        raise MalformedResponse("malformed records") from error
    if parser.remaining():
        raise MalformedResponse("octets after the last record")
    return _follow_aliases(answers, query, rcode, followed=bool(counts[1]))


def _read_header(parser: dns.wire.Parser, query: Query) -> tuple[int, int, int, int]:
    """Read header and question: the flags, and the counts of records. Raises UnrelatedMessage and DNSException."""
    id_, flags, questions, *counts = parser.get_struct("!HHHHHH")
    if id_ != query.id or flags & _RESPONSE_AND_OPCODE != _RESPONSE:
        raise UnrelatedMessage("not a response to the query")
    if not questions and _rcode(flags, 0) in _NO_QUESTION:
        return flags, *counts
    if questions == 1 and parser.wire.startswith(query.question, _HEADER):
        parser.seek(_HEADER + len(query.question))
        return flags, *counts
    if (  # the case of the letters may differ
        questions != 1
        or parser.get_name(decompress=True) != query.name
        or parser.get_struct("!HH") != (query.type, dns.rdataclass.IN)
    ):
        raise UnrelatedMessage("a response to another query")
    return flags, *counts


def _read_answers(parser: dns.wire.Parser, count: int, query: Query) -> _Answers:
    """Read the records of the type that was asked for, and aliases; skip others."""
    # Records of one name begin with the same octets, usually with the same pointer.
    owners: dict[bytes, dict[int, list[Rdata]]] = {}
    found: dict[dns.name.Name, dict[int, list[Rdata]]] = {}
    parsed = 0
    for _ in range(count):
        start = parser.current
        _skip_name(parser)
        octets = parser.wire[start : parser.current]
        type_, class_, _, length = parser.get_struct("!HHIH")
        with parser.restrict_to(length):
            if class_ != dns.rdataclass.IN or (type_ != query.type and type_ not in _ALIASES):
                parser.get_remaining()
                continue
            parsed += (octets not in owners) + (type_ in _ALIASES)
            if parsed > MAXIMUM_NAMES:
                raise MalformedResponse("too many names")
            if octets not in owners:
                is_own = octets == _TO_QUESTION and parser.wire.startswith(query.question, _HEADER)
                owners[octets] = found.setdefault(query.name if is_own else _name_at(parser, start), {})
            owners[octets].setdefault(type_, []).append(dns.rdata.from_wire_parser(class_, type_, parser))
    return found


def _name_at(parser: dns.wire.Parser, offset: int) -> dns.name.Name:
    elsewhere = dns.wire.Parser(parser.wire, offset)
    return elsewhere.get_name(decompress=True)


def _skip_name(parser: dns.wire.Parser) -> None:
    """Skip a name up to its end or its first pointer."""
    while length := parser.get_uint8():
        if length >= _POINTER:
            parser.get_uint8()
            return
        parser.get_bytes(length)


def _read_extended_flags(parser: dns.wire.Parser, count: int) -> int:
    """Skip the records, but for the flags of EDNS (RFC 6891, 6.1.3): they hold a part of the response code."""
    flags = 0
    for _ in range(count):
        _skip_name(parser)
        type_, _, ttl, length = parser.get_struct("!HHIH")
        parser.get_bytes(length)
        if type_ == dns.rdatatype.OPT:
            flags = ttl
    return flags


def _rcode(flags: int, extended: int) -> int:
    """The response code: four bits of the header, and eight of EDNS above them (RFC 6891, 6.1.3)."""
    return flags & 0xF | extended >> 20 & 0xFF0


def _follow_aliases(answers: _Answers, query: Query, rcode: int, *, followed: bool) -> Response:
    """Find the records at the end of the chain of aliases that begins at the name of the query.

    `followed`: there are records of authority. With them the server says that it has followed the chain to its end.
    """
    if not answers:
        return Response(rcode)
    owner = query.name
    for _ in range(MAXIMUM_ALIASES + 1):
        if found := answers.get(owner, {}).get(query.type):
            return Response(rcode, records=tuple(found))
        target = _target(answers, owner)
        if target is None:
            break
        owner = target
    else:
        raise MalformedResponse("too many aliases")
    unfollowed = owner != query.name and rcode == dns.rcode.NOERROR and not followed
    return Response(rcode, alias=owner if unfollowed else None)


def _target(answers: _Answers, owner: dns.name.Name) -> dns.name.Name | None:
    """The target of the name's CNAME, or of a DNAME above it (RFC 6672, 2.2)."""
    if alias := answers.get(owner, {}).get(dns.rdatatype.CNAME):
        return cast("CNAME", alias[-1]).target
    for top, records in answers.items():
        if (aliases := records.get(dns.rdatatype.DNAME)) and owner != top and owner.is_subdomain(top):
            try:
                return owner.relativize(top).concatenate(cast("DNAME", aliases[-1]).target)
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
