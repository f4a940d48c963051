"""An answer of a nameserver to a question that we have asked (RFC 1035)."""

from __future__ import annotations

from acme_server.validation.dns.wire import InvalidMessage, RecordType, answer, question, wire_name
from fuzz.target import Target

ID = 4711
NAME = "www.example.com"
_QUESTIONS = tuple(question(wire_name(NAME), type_, ID) for type_ in RecordType)


def read(data: bytes) -> None:
    """As an answer to each question."""
    for asked in _QUESTIONS:
        try:
            answer(data, asked)
        except InvalidMessage:
            continue


TARGET = Target(read, ())
