"""The signature algorithms of requests (RFC 7518, 3.1; RFC 8037): which fit a key, and how it verifies them.

What follows from the key alone is decided once, when the key is read: every request of its account needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

Verifier = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

Verify = Callable[[bytes, bytes], None]
"""(signature, message); raises InvalidSignature."""


class _Curve(NamedTuple):
    """The algorithm for keys on a curve, and the octets of each of the two numbers of a signature."""

    algorithm: str
    octets: int
    hash: HashAlgorithm


_CURVES: Mapping[str, _Curve] = MappingProxyType(
    {
        "secp256r1": _Curve("ES256", 32, SHA256()),
        "secp384r1": _Curve("ES384", 48, SHA384()),
        "secp521r1": _Curve("ES512", 66, SHA512()),
    }
)
_RSA: Mapping[str, tuple[AsymmetricPadding, HashAlgorithm]] = MappingProxyType(
    {
        "RS256": (PKCS1v15(), SHA256()),
        "RS384": (PKCS1v15(), SHA384()),
        "RS512": (PKCS1v15(), SHA512()),
        "PS256": (PSS(MGF1(SHA256()), SHA256.digest_size), SHA256()),
    }
)

ALGORITHMS = (*(curve.algorithm for curve in _CURVES.values()), "EdDSA", *_RSA)
"""All algorithms: no MAC, no `none`."""


def verifiers(key: Verifier) -> Mapping[str, Verify]:
    """The algorithms that fit the key, and how it verifies their signatures.

    Raises KeyError for a curve that no algorithm is for.
    """
    match key:
        case RSAPublicKey():
            found = {algorithm: _rsa(key, *parameters) for algorithm, parameters in _RSA.items()}
        case EllipticCurvePublicKey():
            curve = _CURVES[key.curve.name]
            found = {curve.algorithm: _ecdsa(key, curve)}
        case _:
            found = {"EdDSA": key.verify}
    return MappingProxyType(found)


def _rsa(key: RSAPublicKey, padding: AsymmetricPadding, hash_: HashAlgorithm) -> Verify:
    def verify(signature: bytes, message: bytes) -> None:
        key.verify(signature, message, padding, hash_)

    return verify


def _ecdsa(key: EllipticCurvePublicKey, curve: _Curve) -> Verify:
    octets, algorithm = curve.octets, ECDSA(curve.hash)

    def verify(signature: bytes, message: bytes) -> None:
        # r and s side by side, each of full length (RFC 7518, 3.4); DER has another length. That both lie in
        # [1, n-1] is part of the verification itself.
        if len(signature) != 2 * octets:
            raise InvalidSignature
        r, s = int.from_bytes(signature[:octets], "big"), int.from_bytes(signature[octets:], "big")
        key.verify(encode_dss_signature(r, s), message, algorithm)

    return verify
