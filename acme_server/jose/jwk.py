"""Account keys: public JSON Web Keys (RFC 7517), which of them we accept and how they are named (RFC 7638).

josepy reads the keys; what it tolerates is refused before it sees a JWK.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from josepy.errors import Error
from josepy.json_util import encode_b64jose
from josepy.jwk import JWKEC, JWKRSA

from acme_server.jose.decoding import base64url, json_object, malformed
from acme_server.jose.signatures import Verifier, Verify, verifiers
from acme_server.problems import ProblemType, Refused
from kms.pki.weak_ed25519 import ed25519_weakness
from kms.pki.weak_rsa import rsa_weakness

_RSA_BITS = range(2048, 4096 + 1)
_RSA_EXPONENTS = range(65537, 2**32, 2)
_ED25519_OCTETS = 32
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CURVES: Mapping[str, int] = MappingProxyType({"P-256": 32, "P-384": 48, "P-521": 66})
"""The octets of a coordinate."""
_CURVE_NAMES: Mapping[str, str] = MappingProxyType({"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"})
"""The names of curves in JWKs, by those of cryptography."""


@dataclass(frozen=True, slots=True)
class AccountKey:
    """The public key of an account.

    `jwk` is its canonical JSON, the required members alone in the order of RFC 7638; `thumbprint` the base64url digest
    of that; `verifiers` verify the signatures of the algorithms that fit the key.
    """

    public_key: Verifier
    jwk: str
    thumbprint: str
    verifiers: Mapping[str, Verify] = field(repr=False, compare=False)

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that fit the key."""
        return tuple(self.verifiers)


def account_key(jwk: object) -> AccountKey:
    """The key of a JWK.

    Raises Refused: malformed if it is not a JWK, badPublicKey if the key is not accepted. Members
    beside the required ones are ignored, but a private key is refused.
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
    except (ValueError, UnsupportedAlgorithm, Error):
        raise _bad_key("The jwk is not a valid public key.") from None


def stored_account_key(jwk: str) -> AccountKey:
    """The key of an account in its resource: the canonical JSON of `AccountKey.jwk`."""
    return account_key(json_object(jwk.encode(), "The stored key"))


def thumbprint(public_key: object) -> str | None:
    """The thumbprint of a key (RFC 7638); None for a type of key that no account can have."""
    jwk = _canonical(public_key)
    return None if jwk is None else _digest(jwk)


def _canonical(public_key: object) -> str | None:
    """The JWK of which a thumbprint is the digest (RFC 7638, 3; RFC 8037, 2); None as for `thumbprint`."""
    match public_key:
        case EllipticCurvePublicKey() if curve := _CURVE_NAMES.get(public_key.curve.name):
            point, octets = public_key.public_numbers(), _CURVES[curve]
            return f'{{"crv":"{curve}","kty":"EC","x":"{_number(point.x, octets)}","y":"{_number(point.y, octets)}"}}'
        case RSAPublicKey():
            numbers = public_key.public_numbers()
            return f'{{"e":"{_number(numbers.e)}","kty":"RSA","n":"{_number(numbers.n)}"}}'
        case Ed25519PublicKey():
            return f'{{"crv":"Ed25519","kty":"OKP","x":"{encode_b64jose(public_key.public_bytes_raw())}"}}'
        case _:
            return None


def _number(value: int, octets: int | None = None) -> str:
    """The number in base64url, in that many octets; None: in as many as it needs (RFC 7518, 2)."""
    return encode_b64jose(value.to_bytes(octets or (value.bit_length() + 7) // 8, "big"))


def _digest(jwk: str) -> str:
    return encode_b64jose(hashlib.sha256(jwk.encode()).digest())


def _rsa(jwk: Mapping[str, Any]) -> AccountKey:
    n, e = (int.from_bytes(_octets(jwk, member, longest)) for member, longest in (("n", _RSA_BITS[-1] // 8), ("e", 4)))
    if n.bit_length() not in _RSA_BITS:
        raise _bad_key(f"The RSA key has {n.bit_length()} bits; 2048 to 4096 are accepted.")
    if e not in _RSA_EXPONENTS:
        raise _bad_key("The exponent of the RSA key is not an odd number from 65537 to 4294967295.")
    # The weaknesses are those of the modulus; account keys may have more exponents than certificate keys.
    if weakness := rsa_weakness(n, 65537):
        raise _bad_key(f"The RSA key is not accepted: {weakness}.")
    return _make_account_key(JWKRSA.fields_from_json(jwk).key.public_numbers().public_key())


def _ec(jwk: Mapping[str, Any]) -> AccountKey:
    name = jwk.get("crv")
    if not isinstance(name, str) or name not in _CURVES:
        raise _bad_key("The curve of the key is not supported; use P-256, P-384 or P-521.")
    for member in ("x", "y"):
        _check_coordinate(jwk, member, _CURVES[name])
    return _make_account_key(JWKEC.fields_from_json(jwk).key.public_numbers().public_key())


def _okp(jwk: Mapping[str, Any]) -> AccountKey:
    if jwk.get("crv") != "Ed25519":
        raise _bad_key("The curve of the key is not supported; use Ed25519.")
    octets = _check_coordinate(jwk, "x", _ED25519_OCTETS)
    if weakness := ed25519_weakness(octets):
        raise _bad_key(f"The Ed25519 key is not accepted: {weakness}.")
    return _make_account_key(Ed25519PublicKey.from_public_bytes(octets))


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], AccountKey]] = MappingProxyType(
    {"RSA": _rsa, "EC": _ec, "OKP": _okp}
)


def _octets(jwk: Mapping[str, Any], member: str, longest: int) -> bytes:
    """The octets of an unsigned integer without leading zeros; its length is limited before it becomes a number."""
    text = jwk.get(member)
    # A few leading zeros are accepted, as RFC 7638 strips them; a long run of them is refused.
    if isinstance(text, str) and len(text) > (longest + 8) * 4 // 3:
        raise _bad_key(f"The member {member} of the jwk is too long.")
    octets = base64url(text, f"The member {member} of the jwk").lstrip(b"\0")
    if len(octets) > longest:
        raise _bad_key(f"The member {member} of the jwk is too long.")
    return octets


def _check_coordinate(jwk: Mapping[str, Any], member: str, size: int) -> bytes:
    """The value, if it has exactly the length of its field (RFC 7518, 6.2.1.2; RFC 8037, 2). Raises Refused."""
    text = jwk.get(member)
    if isinstance(text, str) and len(text) > size * 2:
        raise _bad_key(f"The member {member} of the jwk is too long.")
    octets = base64url(text, f"The member {member} of the jwk")
    if len(octets) != size:
        raise _bad_key(f"The member {member} of the jwk does not have {size} octets.")
    return octets


def _make_account_key(key: Verifier) -> AccountKey:
    jwk = _canonical(key)
    if jwk is None:
        raise ValueError("not a key of an account")
    return AccountKey(key, jwk, _digest(jwk), verifiers(key))


def _bad_key(detail: str) -> Refused:
    return Refused(ProblemType.BAD_PUBLIC_KEY, detail)
