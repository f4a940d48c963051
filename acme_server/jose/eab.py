"""External account binding (RFC 8555, 7.3.4): the inner JWS that binds a new account key to a credential."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from acme_server.jose.decoding import json_object, malformed
from acme_server.jose.jwk import AccountKey, account_key
from acme_server.jose.jws import algorithm_of, envelope, url_of
from acme_server.problems import ProblemType, Refused

_WHAT = "The externalAccountBinding"
_MAXIMUM_KEY_ID = 256
_DUMMY_KEY = b"\0" * 32
"""A dummy key for unknown key identifiers, so that both refusals take the same time."""

ALGORITHMS: Mapping[str, str] = MappingProxyType({"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"})
"""The digests of the MAC algorithms."""


@dataclass(frozen=True, slots=True)
class SignedBinding:
    """A valid binding, except that its MAC has not been verified with the key of `key_id`."""

    key_id: str
    algorithm: str
    signature: bytes
    signed: bytes


def parse(members: Mapping[str, Any], *, url: str, key: AccountKey) -> SignedBinding:
    """The binding of `key` in a newAccount request that was sent to `url`.

    Raises Refused: malformed, or badSignatureAlgorithm if the alg is no MAC.
    """
    jws = envelope(members, _WHAT)
    header = jws.header
    algorithm = algorithm_of(header, ALGORITHMS)
    key_id = header.get("kid")
    if (
        not isinstance(key_id, str)
        or not (key_id.isascii() and key_id.isprintable())
        or not 0 < len(key_id) <= _MAXIMUM_KEY_ID
    ):
        raise malformed(f"{_WHAT} must have a kid in ASCII.")
    if "nonce" in header or "jwk" in header:
        raise malformed(f"{_WHAT} must have neither a nonce nor a jwk in its protected header.")
    if url_of(header) != url:
        raise malformed(f"{_WHAT} has another url than the request around it.")
    # Keys are compared, not their JSON: the order of members does not matter.
    if account_key(json_object(jws.payload, "The payload of the externalAccountBinding")).thumbprint != key.thumbprint:
        raise malformed(f"{_WHAT} is for another key than the one that signed the request.")
    return SignedBinding(key_id, algorithm, jws.signature, jws.signed)


def verify(binding: SignedBinding, mac_key: bytes | None) -> None:
    """Check the MAC with the key of `binding.key_id`; None for an unknown key identifier.

    Raises Refused (unauthorized), the same for a wrong MAC and for an unknown key identifier.
    """
    expected = hmac.digest(mac_key or _DUMMY_KEY, binding.signed, ALGORITHMS[binding.algorithm])
    if not hmac.compare_digest(expected, binding.signature) or not mac_key:
        raise not_valid()


def not_valid() -> Refused:
    """The refusal of a binding, the same for every reason."""
    return Refused(
        ProblemType.UNAUTHORIZED,
        "The external account binding is not valid: its key identifier is unknown here or its MAC is wrong.",
    )
