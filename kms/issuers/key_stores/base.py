"""Where the key of a CA is, what its key store answers, and the errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kms.pki.keys import PublicKey
from kms.pki.stand_in import ToBeSigned
from kms.resources.authorities import KeyStore


class KeyStoreNotReady(Exception):
    """The key store does not answer now; the message says why, without credentials. Trying again may help."""


class KeyStoreRefused(Exception):
    """The key store refuses, and goes on to until somebody changes something. `reason` is one for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class KeyLocation:
    """A key store, the key in it, and what opens the store.

    `credentials` are by their names in the Secret of the release namespace (`kms.resources.secret_names`).
    """

    store: KeyStore
    credentials: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, store: KeyStore, credentials: Mapping[str, bytes]) -> KeyLocation:
        """The location with these credentials; equal ones are equal."""
        return cls(store, tuple(sorted(credentials.items())))

    def credential(self, name: str) -> bytes:
        """One of the credentials. Raises KeyStoreRefused if it is missing."""
        for each, value in self.credentials:
            if each == name:
                return value
        raise KeyStoreRefused("SecretNotFound", f"the credential {name} of the key store is missing")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key pair in a key store; `version` where the store has versions.

    `exposed` says how the private key could leave the store, or be lost; None: it cannot.
    """

    public_key: PublicKey
    version: int | None = None
    exposed: str | None = None


class KeyStoreClient(Protocol):
    """A kind of key store. All methods raise KeyStoreNotReady and KeyStoreRefused, and nothing else of the store."""

    async def find(self, location: KeyLocation) -> StoredKey | None:
        """The key; None if the store has none of that name."""
        ...

    async def make(self, location: KeyLocation, algorithm: str, size: int | None) -> StoredKey:
        """Make the key, which cannot leave the store. The arguments are those of `kms.pki.keys.generate_key`."""
        ...

    async def sign(self, location: KeyLocation, wanted: ToBeSigned) -> bytes:
        """The signature: in DER with ECDSA, of PKCS #1 v1.5 with RSA. Nobody has verified it."""
        ...

    async def close(self) -> None:
        """Log out."""
        ...
