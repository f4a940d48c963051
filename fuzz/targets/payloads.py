"""The payloads of signed requests, each read as every type that there is."""

from __future__ import annotations

from acme_server import wire
from acme_server.problems import Refused
from acme_server.rules import contacts
from fuzz.target import Target

_TYPES = tuple(
    each
    for each in vars(wire).values()
    if isinstance(each, type) and issubclass(each, wire.Payload) and each is not wire.Payload
)


def read(data: bytes) -> None:
    """Contacts and the CSR are read on."""
    for type_ in _TYPES:
        try:
            payload = wire.decode(data, type_)
            if isinstance(payload, wire.Finalization):
                payload.request()
            if isinstance(payload, wire.NewAccount | wire.AccountUpdate):
                contacts.validated(payload.contact or ())
        except Refused:
            continue


TARGET = Target(read, ())
