"""CAs whose key is in a key store: the Secret of the release namespace says where, and what opens the store.

The Secret has the CA's certificate too, as that of a CA with a key in memory has. Every signature is verified with the
key of that certificate before anything is made of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec
from cryptography import x509

from kms.issuers.base import Issued, IssuerNotReady, issued
from kms.issuers.key_stores import KeyLocation, KeyStoreNotReady, KeyStoreRefused, KeyStores
from kms.issuers.secret import published_certificate
from kms.pki.ca import InvalidAuthority, load_remote_signer
from kms.pki.certificate import LeafTemplate, Signer, sign_leaf
from kms.pki.crl import ListTemplate, revocation_list
from kms.pki.keys import PrivateKey, PublicKey
from kms.pki.stand_in import ToBeSigned, WrongSignature, completed, to_be_signed
from kms.resources.authorities import CertificateAuthority, KeyStore
from kms.resources.core import Secret
from kms.resources.secret_names import KEY_STORE, TLS_CERTIFICATE

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RemoteKey:
    """The key of a CA in a key store; `public_key` is that of the CA's certificate."""

    public_key: PublicKey
    location: KeyLocation
    stores: KeyStores

    async def sign(self, wanted: ToBeSigned) -> bytes:
        """The signature, not yet verified. Raises KeyStoreNotReady and KeyStoreRefused."""
        return await self.stores.sign(self.location, wanted)


def location_in(data: Mapping[str, bytes]) -> KeyLocation | None:
    """Where the key is, by the data of a signing key's Secret; None if the Secret has the key itself.

    Raises ValueError if it cannot be read.
    """
    text = data.get(KEY_STORE)
    if text is None:
        return None
    try:
        store = msgspec.json.decode(text, type=KeyStore)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ValueError(f"{KEY_STORE} cannot be read") from None
    return KeyLocation.of(store, {key: value for key, value in data.items() if key not in {KEY_STORE, TLS_CERTIFICATE}})


class StoredKeyIssuer:
    """A CA that signs with a key in a key store. `name` is for messages."""

    def __init__(self, signer: Signer, key: RemoteKey, *, name: str) -> None:
        self._signer = signer
        self._key = key
        self._name = name

    @property
    def not_after(self) -> datetime:
        """The end of the first certificate in the CA's chain to expire."""
        return self._signer.not_after

    @property
    def signs_lists(self) -> bool:
        """Whether the key usage of the CA's certificate allows it to sign revocation lists."""
        return self._signer.signs_lists

    async def sign(self, template: LeafTemplate) -> Issued:
        """Sign. Raises IssuerNotReady for whatever the key store answers, and ValueError for an invalid template.

        The bytes to be signed follow from the template; the signature may differ from that of another replica.
        """

        def build(key: PrivateKey) -> x509.Certificate:
            return sign_leaf(template, self._signer.with_key(key))

        wanted = to_be_signed(build, self._key.public_key)
        leaf = self._verified(build, wanted, await self._signature(wanted))
        return issued(leaf, template, self._signer)

    async def revocation_list(self, template: ListTemplate) -> bytes:
        """Sign a revocation list, in DER, with both passes in threads. Raises IssuerNotReady."""

        def build(key: PrivateKey) -> bytes:
            return revocation_list(template, self._signer.with_key(key))

        wanted = await asyncio.to_thread(to_be_signed, build, self._key.public_key)
        signature = await self._signature(wanted)
        return await asyncio.to_thread(self._verified, build, wanted, signature)

    async def _signature(self, wanted: ToBeSigned) -> bytes:
        try:
            return await self._key.sign(wanted)
        except (KeyStoreNotReady, KeyStoreRefused) as error:
            raise IssuerNotReady(f"the key store of {self._name} does not sign: {error}") from error

    def _verified(self, build: Callable[[PrivateKey], T], wanted: ToBeSigned, signature: bytes) -> T:
        try:
            return completed(build, self._key.public_key, wanted, signature)
        except WrongSignature as error:
            raise IssuerNotReady(f"the key store of {self._name} signs with another key: {error}") from error


def stored_key_issuer_from(secret: Secret, authority: CertificateAuthority, stores: KeyStores) -> StoredKeyIssuer:
    """The issuer that signs for `authority` with the key that `secret` locates.

    Raises IssuerNotReady if the Secret cannot be used, or does not hold the certificate that `authority` publishes.
    """
    name = f"CertificateAuthority {authority.metadata.namespace}/{authority.metadata.name}"
    try:
        signer = load_remote_signer(secret.data.get(TLS_CERTIFICATE, b""))
        location = location_in(secret.data)
    except (InvalidAuthority, ValueError) as error:
        raise IssuerNotReady(f"the key store of {name} is not known: {error}") from error
    if location is None or signer.certificate != published_certificate(authority):
        raise IssuerNotReady(f"the signing key of {name} does not belong to the certificate in its status")
    return StoredKeyIssuer(signer, RemoteKey(signer.key.public_key(), location, stores), name=name)
