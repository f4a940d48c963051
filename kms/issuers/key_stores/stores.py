"""The key stores of one process."""

from __future__ import annotations

from collections.abc import Sequence

from kms.issuers.key_stores.base import KeyLocation, KeyStoreClient, KeyStoreRefused, StoredKey
from kms.issuers.key_stores.pkcs11_tokens import PKCS11Tokens
from kms.issuers.key_stores.transit import TransitKeys
from kms.pki.stand_in import ToBeSigned


class KeyStores:
    """Finds, makes and uses keys, by the client of each kind of key store.

    All methods raise KeyStoreNotReady and KeyStoreRefused.
    """

    def __init__(self, *, pkcs11: KeyStoreClient, transit: KeyStoreClient) -> None:
        self._pkcs11 = pkcs11
        self._transit = transit

    @classmethod
    def build(cls, *, pkcs11_modules: Sequence[str] = ()) -> KeyStores:
        """The clients; `pkcs11_modules` are the paths of the modules that may be loaded."""
        return cls(pkcs11=PKCS11Tokens(modules=pkcs11_modules), transit=TransitKeys())

    async def find(self, location: KeyLocation) -> StoredKey | None:
        """The key at that location; None if its store has none of that name."""
        return await self._client(location).find(location)

    async def make(self, location: KeyLocation, algorithm: str, size: int | None) -> StoredKey:
        """Make a key that cannot leave its store. The arguments are those of `kms.pki.keys.generate_key`."""
        return await self._client(location).make(location, algorithm, size)

    async def sign(self, location: KeyLocation, wanted: ToBeSigned) -> bytes:
        """The signature over a message, which nobody has verified."""
        return await self._client(location).sign(location, wanted)

    async def close(self) -> None:
        """Log out everywhere."""
        await self._pkcs11.close()
        await self._transit.close()

    def _client(self, location: KeyLocation) -> KeyStoreClient:
        if location.store.pkcs11 is not None:
            return self._pkcs11
        if location.store.transit is not None:
            return self._transit
        raise KeyStoreRefused("InvalidSpec", "spec.internal.keyStore names no key store that this version knows")
