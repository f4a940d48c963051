"""The inner JWS of a key change (RFC 8555, 7.3.5), signed with the new key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acme_server.jose.decoding import json_object, malformed
from acme_server.jose.jwk import AccountKey, account_key
from acme_server.jose.jws import algorithm_of, envelope, url_of, verify_signature
from acme_server.jose.signatures import ALGORITHMS

_WHAT = "The inner JWS of the key change"
_PAYLOAD = "The payload of the inner JWS"


@dataclass(frozen=True, slots=True)
class KeyRollover:
    """A key change, signed with the new key: it replaces the key with the thumbprint `old`."""

    new: AccountKey
    old: str


def parse(payload: bytes, *, url: str, account: str) -> KeyRollover:
    """The key change in the payload of a request that `account` (its URL) has sent to `url`.

    The signature of the new key is verified. The caller checks whether `old` is the account's key. Raises
    Refused: malformed, badPublicKey, badSignatureAlgorithm.
    """
    jws = envelope(json_object(payload, _WHAT), _WHAT)
    header = jws.header
    algorithm = algorithm_of(header, ALGORITHMS)
    if "nonce" in header or "kid" in header:
        raise malformed(f"{_WHAT} must have neither a nonce nor a kid in its protected header.")
    if not isinstance(header.get("jwk"), dict):
        raise malformed(f"{_WHAT} must have the new key as a jwk in its protected header.")
    if url_of(header) != url:
        raise malformed(f"{_WHAT} has another url than the request around it.")
    new = account_key(header["jwk"])
    verify_signature(new, algorithm, jws.signature, jws.signed, "the inner JWS")
    return KeyRollover(new, _old(json_object(jws.payload, _PAYLOAD), account))


def _old(members: Mapping[str, Any], account: str) -> str:
    """The thumbprint of the oldKey: keys are compared, not spellings."""
    if members.get("account") != account:
        raise malformed(f"{_PAYLOAD} must name the account that the request comes from, by its URL.")
    if not isinstance(members.get("oldKey"), dict):
        raise malformed(f"{_PAYLOAD} must have the account's key as oldKey.")
    return account_key(members["oldKey"]).thumbprint
