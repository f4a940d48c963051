"""Keys that cannot be read, for builders that take a key: the signature comes from where the key is.

cryptography's builders take any object of its abstract classes. So what is to be signed is built twice: the first time
to learn the bytes, the second time with the signature over them. Between the two, the caller may wait for a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurve,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from kms.pki.keys import PrivateKey, PublicKey

T = TypeVar("T")

_HASHES: Mapping[str, HashAlgorithm] = MappingProxyType({each.name: each for each in (SHA256(), SHA384(), SHA512())})


@dataclass(frozen=True, slots=True)
class ToBeSigned:
    """A message, and the name of the hash of its signature (`sha256`, `sha384`, `sha512`); None for Ed25519.

    RSA signatures are those of PKCS #1 v1.5, ECDSA signatures are in DER.
    """

    message: bytes
    hash: str | None


Sign: TypeAlias = Callable[[ToBeSigned], bytes]
"""Returns the signature over the message. What it raises comes out of the builder unchanged."""


class WrongSignature(Exception):
    """A signature that the public key does not verify."""


def stand_in(public_key: PublicKey, sign: Sign) -> PrivateKey:
    """A private key for builders: `sign` signs for it. Nothing else of the key can be used."""
    match public_key:
        case RSAPublicKey():
            return _RSA(public_key, sign)
        case EllipticCurvePublicKey():
            return _EllipticCurve(public_key, sign)
        case _:
            return _Ed25519(public_key, sign)


def absent(public_key: PublicKey) -> PrivateKey:
    """A private key that is compared and never signs. Signing raises RuntimeError."""
    return stand_in(public_key, _refuse)


def is_stand_in(key: PrivateKey) -> bool:
    """Whether the key was made by `stand_in`."""
    return isinstance(key, _RSA | _EllipticCurve | _Ed25519)


def to_be_signed(build: Callable[[PrivateKey], object], public_key: PublicKey) -> ToBeSigned:
    """What `build` signs last with the key that it is given. The document that it builds is thrown away.

    Raises what `build` raises.
    """
    messages: list[ToBeSigned] = []

    def record(message: ToBeSigned) -> bytes:
        messages.append(message)
        return b""

    build(stand_in(public_key, record))
    return messages[-1]


def completed(build: Callable[[PrivateKey], T], public_key: PublicKey, wanted: ToBeSigned, signature: bytes) -> T:
    """What `build` builds, with the signature over `wanted`.

    Raises WrongSignature if the public key does not verify the signature, and ValueError if `build` signs another
    message this time.
    """
    verify(public_key, wanted, signature)
    last: list[ToBeSigned] = []

    def replay(message: ToBeSigned) -> bytes:
        last[:] = [message]
        return signature if message == wanted else b""

    document = build(stand_in(public_key, replay))
    if last != [wanted]:
        raise ValueError("the document was built differently the second time")
    return document


def verify(public_key: PublicKey, wanted: ToBeSigned, signature: bytes) -> None:
    """Raise WrongSignature unless the public key verifies the signature over `wanted`."""
    hash_ = _HASHES[wanted.hash] if wanted.hash is not None else None
    try:
        match public_key:
            case RSAPublicKey() if hash_ is not None:
                public_key.verify(signature, wanted.message, PKCS1v15(), hash_)
            case EllipticCurvePublicKey() if hash_ is not None:
                public_key.verify(signature, wanted.message, ECDSA(hash_))
            case Ed25519PublicKey() if hash_ is None:
                public_key.verify(signature, wanted.message)
            case _:
                raise WrongSignature("the hash does not fit the key")
    except (InvalidSignature, ValueError):
        raise WrongSignature("the key of the CA's certificate does not verify the signature") from None


def _refuse(_: ToBeSigned) -> bytes:
    raise RuntimeError("this key is only compared; sign where the key is")


def _unsupported(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("the key is in a key store: it can neither be read nor copied")


class _RSA(RSAPrivateKey):
    def __init__(self, public_key: RSAPublicKey, sign: Sign) -> None:
        self._public_key = public_key
        self._sign = sign

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def public_key(self) -> RSAPublicKey:
        return self._public_key

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        if not isinstance(padding, PKCS1v15):
            raise TypeError("key stores are asked for RSA signatures of PKCS #1 v1.5 only")
        return self._sign(ToBeSigned(bytes(data), algorithm.name))

    decrypt = private_numbers = private_bytes = __copy__ = __deepcopy__ = _unsupported


class _EllipticCurve(EllipticCurvePrivateKey):
    def __init__(self, public_key: EllipticCurvePublicKey, sign: Sign) -> None:
        self._public_key = public_key
        self._sign = sign

    @property
    def curve(self) -> EllipticCurve:
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def public_key(self) -> EllipticCurvePublicKey:
        return self._public_key

    def sign(self, data: Any, signature_algorithm: Any) -> bytes:
        return self._sign(ToBeSigned(bytes(data), signature_algorithm.algorithm.name))

    exchange = private_numbers = private_bytes = __copy__ = __deepcopy__ = _unsupported


class _Ed25519(Ed25519PrivateKey):
    def __init__(self, public_key: Ed25519PublicKey, sign: Sign) -> None:
        self._public_key = public_key
        self._sign = sign

    def public_key(self) -> Ed25519PublicKey:
        return self._public_key

    def sign(self, data: Any) -> bytes:
        return self._sign(ToBeSigned(bytes(data), None))

    private_bytes = private_bytes_raw = __copy__ = __deepcopy__ = _unsupported
