"""The issuers of CertificateAuthorities, one for each version of key and certificate."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kms.issuers.base import Issuer, IssuerNotReady
from kms.issuers.key_stores import KeyStores
from kms.issuers.secret import issuer_from
from kms.issuers.stored_key import stored_key_issuer_from
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.secret_names import KEY_STORE, signing_key_name


class _Entry(NamedTuple):
    """An issuer, and the versions of key and certificate that it uses."""

    key_version: str
    certificate: str | None
    issuer: Issuer


class Issuers:
    """The issuers of all CAs, created on demand, and again when the Secret or the CA has changed.

    `find_secret` returns a Secret by namespace and name; `namespace` is the release namespace. `key_stores` has the
    keys of CAs whose Secret says that they are elsewhere.
    """

    def __init__(
        self, *, find_secret: Callable[[str, str], Secret | None], namespace: str, key_stores: KeyStores
    ) -> None:
        self._find_secret = find_secret
        self._namespace = namespace
        self._key_stores = key_stores
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        """The number of keys in memory."""
        return len(self._entries)

    def of(self, authority: CertificateAuthority) -> Issuer:
        """The issuer for this CA. Raises IssuerNotReady while there is no key for its certificate."""
        uid = authority.metadata.uid
        secret = self._find_secret(self._namespace, signing_key_name(uid))
        if secret is None:
            self._entries.pop(uid, None)
            name = f"{authority.metadata.namespace}/{authority.metadata.name}"
            raise IssuerNotReady(f"the signing key of CertificateAuthority {name} does not exist yet")
        entry = self._entries.get(uid)
        versions = (secret.metadata.resource_version, authority.status.certificate)
        if entry is None or entry[:2] != versions:
            self._entries.pop(uid, None)
            self._forget_deleted()
            entry = self._entries[uid] = _Entry(*versions, self._issuer_from(secret, authority))
        return entry.issuer

    def _issuer_from(self, secret: Secret, authority: CertificateAuthority) -> Issuer:
        if KEY_STORE in secret.data:
            return stored_key_issuer_from(secret, authority, self._key_stores)
        return issuer_from(secret, authority)

    def _forget_deleted(self) -> None:
        """Drop the keys whose Secret was deleted: their CAs may never be used again."""
        for uid in tuple(self._entries):
            if self._find_secret(self._namespace, signing_key_name(uid)) is None:
                del self._entries[uid]
