"""A key store in memory: what a client of a real one returns, without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from kms.issuers.key_stores import KeyLocation, KeyStoreRefused, KeyStores, StoredKey
from kms.pki.keys import PrivateKey, generate_key
from kms.pki.stand_in import ToBeSigned

_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    each.name: each for each in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
}


def signature_of(key: PrivateKey, wanted: ToBeSigned, *, deterministic: bool = False) -> bytes:
    """The signature that a key store returns: another one each time with ECDSA, unless it is `deterministic`."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(wanted.message)
    hash_ = _HASHES[wanted.hash or ""]
    if isinstance(key, EllipticCurvePrivateKey):
        return key.sign(wanted.message, ECDSA(hash_, deterministic_signing=deterministic))
    return key.sign(wanted.message, PKCS1v15(), hash_)


class Memory:
    """Keys by the name in the location. `sign` replaces what the keys would sign; `exposed` is said of all keys.

    Every call raises `refusal` while that is set.
    """

    def __init__(
        self,
        keys: Mapping[str, PrivateKey] | None = None,
        *,
        sign: Callable[[ToBeSigned], bytes] | None = None,
        exposed: str | None = None,
        version: int | None = None,
    ) -> None:
        self.keys = dict(keys or {})
        self.sign_with, self.exposed, self.version = sign, exposed, version
        self.refusal: Exception | None = None
        self.signed = self.made = 0
        self.credentials: dict[str, bytes] = {}

    @property
    def stores(self) -> KeyStores:
        """Key stores all of whose keys are here."""
        return KeyStores(pkcs11=self, transit=self)

    async def find(self, location: KeyLocation) -> StoredKey | None:
        self._open(location)
        key = self.keys.get(_name(location))
        return None if key is None else StoredKey(key.public_key(), self.version, self.exposed)

    async def make(self, location: KeyLocation, algorithm: str, size: int | None) -> StoredKey:
        self._open(location)
        self.made += 1
        key = self.keys[_name(location)] = generate_key(algorithm, size)
        return StoredKey(key.public_key(), self.version, self.exposed)

    async def sign(self, location: KeyLocation, wanted: ToBeSigned) -> bytes:
        self._open(location)
        self.signed += 1
        if self.sign_with is not None:
            return self.sign_with(wanted)
        if _name(location) not in self.keys:
            raise KeyStoreRefused("KeyLost", "no such key")
        return signature_of(self.keys[_name(location)], wanted)

    async def close(self) -> None:
        """Nothing is open."""

    def _open(self, location: KeyLocation) -> None:
        self.credentials = dict(location.credentials)
        if self.refusal is not None:
            raise self.refusal


def _name(location: KeyLocation) -> str:
    store = location.store.pkcs11 or location.store.transit
    assert store is not None
    return store.key
