"""The inner JWS of a key change, including its signature (RFC 8555, 7.3.5)."""

from __future__ import annotations

from acme_server.jose.key_rollover import parse
from acme_server.problems import Refused
from fuzz.target import Target

URL = "https://acme.example.com/acme/pki/web/key-change"
ACCOUNT = "https://acme.example.com/acme/pki/web/accounts/" + "a" * 52


def read(data: bytes) -> None:
    """Parse and verify the payload of the outer JWS."""
    parse(data, url=URL, account=ACCOUNT)


TARGET = Target(read, (Refused,))
