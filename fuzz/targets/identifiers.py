"""The identifiers of a new order, from JSON to names (RFC 8555, 7.4)."""

from __future__ import annotations

from acme_server.api.problems import answer_refusal
from acme_server.orders.identifiers import normalise
from acme_server.payloads import NewOrder, decode
from acme_server.problems import Refused
from fuzz.target import Target


def read(data: bytes) -> None:
    """Parse the identifiers; a refusal must have a problem document."""
    try:
        normalise(decode(data, NewOrder).identifiers)
    except Refused as refused:
        answer_refusal(refused)


TARGET = Target(read, ())
