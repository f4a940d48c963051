"""An answer of a nameserver about TXT and CAA records, and what the CAA records say (RFC 8659)."""

from __future__ import annotations

from acme_server.validation.caa_rules import Issuance, objection
from acme_server.validation.dns.messages import properties, query, record_name, texts
from acme_server.validation.dns.messages import read as read_answer
from acme_server.validation.dns.wire import InvalidMessage
from fuzz.target import Target

ID = 4711
NAME = "www.example.com"
TXT, CAA = (query(record_name(NAME), kind, ID) for kind in ("TXT", "CAA"))
_ISSUANCE = Issuance(wildcard=True, issuers=("ca.example.com",), account="https://ca.example.com/1", method="dns-01")


def read(data: bytes) -> None:
    """As an answer to each question."""
    for asked in (TXT, CAA):
        try:
            found = read_answer(data, asked).records
        except InvalidMessage:
            continue
        if asked is TXT:
            texts(found)
        else:
            objection(properties(found), _ISSUANCE)


TARGET = Target(read, ())
