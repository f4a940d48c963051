"""Account keys: public JSON Web Keys (RFC 7517), which of them we accept and how they are named (RFC 7638)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from acme_server.jose.decoding import base64url, json_object, malformed, unpadded
from acme_server.problems import ProblemType, Refused
from kms.pki.weak_rsa import rsa_weakness

Verifier = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256")
_RSA_BITS = range(2048, 4096 + 1)
_RSA_EXPONENTS = range(65537, 2**32, 2)
_ED25519_OCTETS = 32
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class AccountKey:
    """The public key of an account.

    `jwk` is its canonical JSON, the required members alone in the order of RFC 7638; `thumbprint` the base64url digest
    of that; `algorithms` are those that fit the key.
    """

    public_key: Verifier
    jwk: str
    thumbprint: str
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Curve:
    curve: EllipticCurve
    octets: int
    algorithm: str


_CURVES: Mapping[str, _Curve] = MappingProxyType(
    {
        "P-256": _Curve(SECP256R1(), 32, "ES256"),
        "P-384": _Curve(SECP384R1(), 48, "ES384"),
        "P-521": _Curve(SECP521R1(), 66, "ES512"),
    }
)


def account_key(jwk: object) -> AccountKey:
    """The key that the members of a JWK describe.

    Raises Refused: malformed where it is no JWK, badPublicKey where it is one that we do not accept. Members
    beside the required ones are ignored, but a private key is never taken.
    """
    if not isinstance(jwk, dict):
        raise malformed("The jwk is not a JSON object.")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise _bad_key("The jwk holds a private or a symmetric key; send the public key alone, and replace this one.")
    kind = jwk.get("kty")
    read = _KINDS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise _bad_key("The key type of the jwk is not supported; use RSA, EC or OKP (Ed25519).")
    try:
        return read(jwk)
    except (ValueError, UnsupportedAlgorithm):
        raise _bad_key("The jwk is not a valid public key.") from None


def stored_account_key(jwk: str) -> AccountKey:
    """The key of an account as its resource keeps it: the canonical JSON of `AccountKey.jwk`."""
    return account_key(json_object(jwk.encode(), "The stored key"))


def _rsa(jwk: Mapping[str, Any]) -> AccountKey:
    modulus = _octets(jwk, "n", _RSA_BITS[-1] // 8)
    exponent = int.from_bytes(_octets(jwk, "e", 4), "big")
    n = int.from_bytes(modulus, "big")
    if n.bit_length() not in _RSA_BITS:
        raise _bad_key(f"The RSA key has {n.bit_length()} bits; 2048 to 4096 are accepted.")
    if exponent not in _RSA_EXPONENTS:
        raise _bad_key("The exponent of the RSA key is not an odd number from 65537 to 4294967295.")
    # The weaknesses are those of the modulus; account keys may have more exponents than certificate keys.
    if weakness := rsa_weakness(n, 65537):
        raise _bad_key(f"The RSA key is not accepted: {weakness}.")
    key = RSAPublicNumbers(exponent, n).public_key()
    e = exponent.to_bytes((exponent.bit_length() + 7) // 8, "big")
    return _named(key, {"e": unpadded(e), "kty": "RSA", "n": unpadded(modulus)}, RSA_ALGORITHMS)


def _ec(jwk: Mapping[str, Any]) -> AccountKey:
    name = jwk.get("crv")
    curve = _CURVES.get(name) if isinstance(name, str) else None
    if curve is None:
        raise _bad_key("The curve of the key is not supported; use P-256, P-384 or P-521.")
    x, y = (_coordinate(jwk, member, curve.octets) for member in ("x", "y"))
    numbers = EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve.curve)
    members = {"crv": name, "kty": "EC", "x": unpadded(x), "y": unpadded(y)}
    return _named(numbers.public_key(), members, (curve.algorithm,))


def _okp(jwk: Mapping[str, Any]) -> AccountKey:
    if jwk.get("crv") != "Ed25519":
        raise _bad_key("The curve of the key is not supported; use Ed25519.")
    x = _coordinate(jwk, "x", _ED25519_OCTETS)
    members = {"crv": "Ed25519", "kty": "OKP", "x": unpadded(x)}
    return _named(Ed25519PublicKey.from_public_bytes(x), members, ("EdDSA",))


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], AccountKey]] = MappingProxyType(
    {"RSA": _rsa, "EC": _ec, "OKP": _okp}
)


def _octets(jwk: Mapping[str, Any], member: str, longest: int) -> bytes:
    """The octets of an unsigned integer without leading zeros; its length is limited before it becomes a number."""
    text = jwk.get(member)
    # A few leading zeros are tolerated, as RFC 7638 strips them; a long run of them is somebody wasting our time.
    if isinstance(text, str) and len(text) > (longest + 8) * 4 // 3:
        raise _bad_key(f"The member {member} of the jwk is too long.")
    octets = base64url(text, f"The member {member} of the jwk").lstrip(b"\0")
    if len(octets) > longest:
        raise _bad_key(f"The member {member} of the jwk is too long.")
    return octets


def _coordinate(jwk: Mapping[str, Any], member: str, size: int) -> bytes:
    """A value that has exactly the length of its field, leading zeros included (RFC 7518, 6.2.1.2; RFC 8037, 2)."""
    text = jwk.get(member)
    if isinstance(text, str) and len(text) > size * 2:
        raise _bad_key(f"The member {member} of the jwk is too long.")
    octets = base64url(text, f"The member {member} of the jwk")
    if len(octets) != size:
        raise _bad_key(f"The member {member} of the jwk does not have {size} octets.")
    return octets


def _named(key: Verifier, members: Mapping[str, Any], algorithms: tuple[str, ...]) -> AccountKey:
    jwk = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return AccountKey(key, jwk, unpadded(sha256(jwk.encode()).digest()), algorithms)


def _bad_key(detail: str) -> Refused:
    return Refused(ProblemType.BAD_PUBLIC_KEY, detail)
