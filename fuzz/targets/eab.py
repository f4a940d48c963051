"""An external account binding (RFC 8555, 7.3.4), including its MAC."""

from __future__ import annotations

from acme_server.jose import eab
from acme_server.jose.decoding import json_object
from acme_server.jose.jwk import account_key
from acme_server.problems import Refused
from fuzz.target import Target

URL = "https://acme.example.com/acme/pki/web/new-account"
MAC_KEY = bytes(range(32))
JWK = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}
"""The public key of RFC 7517, A.1."""
_KEY = account_key(JWK)


def read(data: bytes) -> None:
    """Parse the JWS, then verify the MAC."""
    eab.verify(eab.parse(json_object(data, "The binding"), url=URL, key=_KEY), MAC_KEY)


TARGET = Target(read, (Refused,))
