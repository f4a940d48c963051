"""The payload of a signed request, parsed as every payload type."""

from __future__ import annotations

from acme_server import payloads
from acme_server.accounts import contacts
from acme_server.problems import Refused
from fuzz.target import Target

_TYPES = tuple(
    each
    for each in vars(payloads).values()
    if isinstance(each, type) and issubclass(each, payloads.Payload) and each is not payloads.Payload
)


def read(data: bytes) -> None:
    """Parse the payload, then its contacts and CSR."""
    for type_ in _TYPES:
        try:
            payload = payloads.decode(data, type_)
            if isinstance(payload, payloads.Finalization):
                payload.request()
            if isinstance(payload, payloads.NewAccount | payloads.AccountUpdate):
                contacts.parse(payload.contact or ())
        except Refused:
            continue


TARGET = Target(read, ())
