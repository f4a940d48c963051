"""A public key as JSON (RFC 7517)."""

from __future__ import annotations

from acme_server.jose.decoding import json_object
from acme_server.jose.jwk import account_key, stored_account_key
from acme_server.problems import Refused
from fuzz.target import Target


def read(data: bytes) -> None:
    """Parse the key; the stored form of an accepted key must parse to the same key."""
    key = account_key(json_object(data, "The jwk"))
    if stored_account_key(key.jwk).thumbprint != key.thumbprint:
        raise AssertionError("the stored key differs")


TARGET = Target(read, (Refused,))
