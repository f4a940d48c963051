"""The inner JWS of a key change, its signature included (RFC 8555, 7.3.5)."""

from __future__ import annotations

from acme_server.jose.key_rollover import parse
from acme_server.problems import Refused
from fuzz.target import Target

URL = "https://acme.example.com/acme/pki/web/key-change"
ACCOUNT = "https://acme.example.com/acme/pki/web/accounts/" + "a" * 52


def read(data: bytes) -> None:
    """As the outer request hands it on."""
    parse(data, url=URL, account=ACCOUNT)


TARGET = Target(read, (Refused,))
