"""Key pairs: generation, parsing, names of algorithms, comparison, and weaknesses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from kms.pki.weak_ed25519 import ed25519_weakness
from kms.pki.weak_rsa import EXPONENT, rsa_weakness

PrivateKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

RSA_SIZES = frozenset({2048, 3072, 4096})
KEY_ALGORITHMS = frozenset({"RSA-2048", "RSA-3072", "RSA-4096", "ECDSA-P256", "ECDSA-P384", "ECDSA-P521", "Ed25519"})
"""The key algorithms of certificates, by the names that policies use."""

_DEFAULT_RSA_SIZE = 3072
_DEFAULT_CURVE_SIZE = 384
_CURVES: Mapping[int, EllipticCurve] = MappingProxyType({256: SECP256R1(), 384: SECP384R1(), 521: SECP521R1()})
_CURVE_NAMES: Mapping[str, str] = MappingProxyType({"secp256r1": "P256", "secp384r1": "P384", "secp521r1": "P521"})
_MAXIMUM_KEY_FILE = 64 * 1024


def generate_key(algorithm: str, size: int | None) -> PrivateKey:
    """A new key pair: `RSA`, `ECDSA` or `Ed25519`, with the size in bits where the algorithm has sizes.

    Without a size, RSA gets 3072 bits and ECDSA 384. Raises ValueError for any other algorithm or size.
    """
    match algorithm:
        case "RSA" if size is None or size in RSA_SIZES:
            return generate_rsa_key(public_exponent=EXPONENT, key_size=size or _DEFAULT_RSA_SIZE)
        case "ECDSA" if size is None or size in _CURVES:
            return generate_ec_key(_CURVES[size or _DEFAULT_CURVE_SIZE])
        case "Ed25519" if size is None:
            return Ed25519PrivateKey.generate()
        case _:
            raise ValueError(f"there is no {algorithm} key of size {size}")


def is_key_of(key: PrivateKey, algorithm: str, size: int | None) -> bool:
    """Whether `generate_key` could have made the key for this algorithm and size."""
    match key:
        case RSAPrivateKey():
            return algorithm == "RSA" and key.key_size == (size or _DEFAULT_RSA_SIZE)
        case EllipticCurvePrivateKey():
            return algorithm == "ECDSA" and key.curve.key_size == (size or _DEFAULT_CURVE_SIZE)
        case _:
            return algorithm == "Ed25519" and size is None


def private_key_pem(key: PrivateKey) -> bytes:
    """The key as unencrypted PKCS #8 in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_private_key(pem: bytes) -> PrivateKey:
    """The private key in PEM: PKCS #8, PKCS #1 or SEC 1, without a password.

    Raises ValueError with a message for people, which never quotes the input.
    """
    if len(pem) > _MAXIMUM_KEY_FILE:
        raise ValueError(f"the private key is larger than {_MAXIMUM_KEY_FILE} bytes")
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError("the private key is encrypted; store it without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "the private key is not PEM of an RSA, ECDSA or Ed25519 key (PKCS #8 or the older forms)"
        ) from None
    if not isinstance(key, PrivateKey) or key_algorithm(key.public_key()) is None:
        raise ValueError("the private key must be RSA, ECDSA on P-256, P-384 or P-521, or Ed25519")
    return key


def key_algorithm(public_key: object) -> str | None:
    """The name that policies use: `RSA-2048`, `ECDSA-P256`, `Ed25519`. None for an unknown algorithm.

    RSA keys of forbidden sizes have names too (`RSA-1024`), so that a refusal can name the key.
    """
    match public_key:
        case RSAPublicKey():
            return f"RSA-{public_key.key_size}"
        case EllipticCurvePublicKey() if curve := _CURVE_NAMES.get(public_key.curve.name):
            return f"ECDSA-{curve}"
        case Ed25519PublicKey():
            return "Ed25519"
        case _:
            return None


def weakness(public_key: object) -> str | None:
    """Why this key must not be used, as the end of a sentence after "the key is not accepted:"; None for a sound key.

    The algorithm and size must be in KEY_ALGORITHMS. An RSA modulus must pass the checks of `rsa_weakness`, an Ed25519
    key those of `ed25519_weakness`. Points of the NIST curves were checked by the parser: they lie on the curve, and
    the cofactor is 1.
    """
    algorithm = key_algorithm(public_key)
    if algorithm not in KEY_ALGORITHMS:
        return f"{algorithm or 'its algorithm'} is not among {', '.join(sorted(KEY_ALGORITHMS))}"
    if isinstance(public_key, RSAPublicKey):
        numbers = public_key.public_numbers()
        return rsa_weakness(numbers.n, numbers.e)
    if isinstance(public_key, Ed25519PublicKey):
        return ed25519_weakness(public_key.public_bytes_raw())
    return None


def same_public_key(one: PublicKey, other: PublicKey) -> bool:
    """Whether these are the same key, however each was encoded."""
    return one == other


def public_key_der(public_key: PublicKey) -> bytes:
    """The key as SubjectPublicKeyInfo (RFC 5280, 4.1)."""
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(public_key: PublicKey) -> str:
    """SHA-256 of the SubjectPublicKeyInfo in hexadecimal."""
    return hashlib.sha256(public_key_der(public_key)).hexdigest()
