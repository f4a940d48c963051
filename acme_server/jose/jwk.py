"""Account keys: public JSON Web Keys (RFC 7517), which of them we accept and how they are named (RFC 7638).

josepy builds the keys and their thumbprints; what it tolerates is refused before it sees a JWK.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from josepy.errors import Error
from josepy.json_util import decode_b64jose, encode_b64jose
from josepy.jwk import JWK, JWKEC, JWKRSA

from acme_server.jose.decoding import base64url, json_object, malformed
from acme_server.problems import ProblemType, Refused
from kms.pki.weak_ed25519 import ed25519_weakness
from kms.pki.weak_rsa import rsa_weakness

Verifier = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256")
_RSA_BITS = range(2048, 4096 + 1)
_RSA_EXPONENTS = range(65537, 2**32, 2)
_ED25519_OCTETS = 32
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CURVES: Mapping[str, tuple[int, str]] = MappingProxyType(
    {"P-256": (32, "ES256"), "P-384": (48, "ES384"), "P-521": (66, "ES512")}
)
"""The octets of a coordinate, and the algorithm."""


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


class JWKOKP(JWK):
    """An Ed25519 key (RFC 8037); josepy has no keys of this type."""

    typ = "OKP"
    __slots__ = ("key",)
    required = ("crv", JWK.type_field_name, "x")
    key: Ed25519PublicKey

    def fields_to_partial_json(self) -> dict[str, Any]:
        """The members beside `kty`."""
        return {"crv": "Ed25519", "x": encode_b64jose(self.key.public_bytes_raw())}

    @classmethod
    def fields_from_json(cls, jobj: Mapping[str, Any]) -> JWKOKP:
        """The key with these members."""
        return cls(key=Ed25519PublicKey.from_public_bytes(decode_b64jose(jobj["x"])))

    def public_key(self) -> JWKOKP:
        """This key: it is public."""
        return self


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
    model: JWK
    match public_key:
        case RSAPublicKey():
            model = JWKRSA(key=public_key)
        case EllipticCurvePublicKey():
            model = JWKEC(key=public_key)
        case Ed25519PublicKey():
            model = JWKOKP(key=public_key)
        case _:
            return None
    try:
        return encode_b64jose(model.thumbprint())
    except (ValueError, Error):  # another curve
        return None


def _rsa(jwk: Mapping[str, Any]) -> AccountKey:
    n, e = (int.from_bytes(_octets(jwk, member, longest)) for member, longest in (("n", _RSA_BITS[-1] // 8), ("e", 4)))
    if n.bit_length() not in _RSA_BITS:
        raise _bad_key(f"The RSA key has {n.bit_length()} bits; 2048 to 4096 are accepted.")
    if e not in _RSA_EXPONENTS:
        raise _bad_key("The exponent of the RSA key is not an odd number from 65537 to 4294967295.")
    # The weaknesses are those of the modulus; account keys may have more exponents than certificate keys.
    if weakness := rsa_weakness(n, 65537):
        raise _bad_key(f"The RSA key is not accepted: {weakness}.")
    model = JWKRSA.fields_from_json(jwk)
    return _make_account_key(model, model.key.public_numbers().public_key(), RSA_ALGORITHMS)


def _ec(jwk: Mapping[str, Any]) -> AccountKey:
    name = jwk.get("crv")
    if not isinstance(name, str) or name not in _CURVES:
        raise _bad_key("The curve of the key is not supported; use P-256, P-384 or P-521.")
    octets, algorithm = _CURVES[name]
    for member in ("x", "y"):
        _check_coordinate(jwk, member, octets)
    model = JWKEC.fields_from_json(jwk)
    return _make_account_key(model, model.key.public_numbers().public_key(), (algorithm,))


def _okp(jwk: Mapping[str, Any]) -> AccountKey:
    if jwk.get("crv") != "Ed25519":
        raise _bad_key("The curve of the key is not supported; use Ed25519.")
    _check_coordinate(jwk, "x", _ED25519_OCTETS)
    model = JWKOKP.fields_from_json(jwk)
    if weakness := ed25519_weakness(model.key.public_bytes_raw()):
        raise _bad_key(f"The Ed25519 key is not accepted: {weakness}.")
    return _make_account_key(model, model.key, ("EdDSA",))


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


def _check_coordinate(jwk: Mapping[str, Any], member: str, size: int) -> None:
    """Check that a value has exactly the length of its field (RFC 7518, 6.2.1.2; RFC 8037, 2). Raises Refused."""
    text = jwk.get(member)
    if isinstance(text, str) and len(text) > size * 2:
        raise _bad_key(f"The member {member} of the jwk is too long.")
    if len(base64url(text, f"The member {member} of the jwk")) != size:
        raise _bad_key(f"The member {member} of the jwk does not have {size} octets.")


def _make_account_key(model: JWK, key: Verifier, algorithms: tuple[str, ...]) -> AccountKey:
    jwk = json.dumps(model.to_json(), separators=(",", ":"), sort_keys=True)
    return AccountKey(key, jwk, encode_b64jose(model.thumbprint()), algorithms)


def _bad_key(detail: str) -> Refused:
    return Refused(ProblemType.BAD_PUBLIC_KEY, detail)
