"""A response of a DNS server (RFC 1035) to queries for A, AAAA, TXT and CAA, and the rules of CAA (RFC 8659)."""

from __future__ import annotations

from acme_server.validation.caa_rules import Issuance, objection
from acme_server.validation.dns.messages import (
    MalformedResponse,
    RecordType,
    UnrelatedMessage,
    addresses,
    build_query,
    parse_name,
    properties,
    read_response,
    texts,
)
from fuzz.target import Target

NAME = "www.example.com"
_TYPES: tuple[RecordType, ...] = ("A", "AAAA", "TXT", "CAA")
QUERIES = {type_: build_query(parse_name(NAME), type_, 4711) for type_ in _TYPES}
_ISSUANCE = Issuance(wildcard=True, issuers=("ca.example.com",), account="https://ca.example.com/1", method="dns-01")


def read(data: bytes) -> None:
    """Parse the response to each query."""
    for type_, query in QUERIES.items():
        try:
            records = read_response(data, query).records
        except (UnrelatedMessage, MalformedResponse):
            continue
        if type_ == "TXT":
            texts(records)
        elif type_ == "CAA":
            objection(properties(records), _ISSUANCE)
        else:
            addresses(records)


TARGET = Target(read, ())
