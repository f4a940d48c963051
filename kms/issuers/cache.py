"""Which issuer signs for a CertificateAuthority."""

from __future__ import annotations

from typing import NamedTuple

from kms.issuers.base import Issuer, IssuerNotReady
from kms.issuers.secret import SigningKeys, issuer_from
from kms.resources.authorities import CertificateAuthority
from kms.resources.secret_names import signing_key_name


class _Entry(NamedTuple):
    """An issuer, and the versions that it was made from."""

    key_version: str
    certificate: str | None
    issuer: Issuer


class Issuers:
    """The issuers of all CAs, made when they are first asked for and again when the Secret or the CA has changed."""

    def __init__(self, *, secrets: SigningKeys, namespace: str) -> None:
        self._secrets = secrets
        self._namespace = namespace
        self._entries: dict[str, _Entry] = {}

    def of(self, authority: CertificateAuthority) -> Issuer:
        """The issuer for this CA. Raises IssuerNotReady while there is no key that goes with its certificate."""
        uid = authority.metadata.uid
        secret = self._secrets.get(self._namespace, signing_key_name(uid))
        if secret is None:
            self._entries.pop(uid, None)
            name = f"{authority.metadata.namespace}/{authority.metadata.name}"
            raise IssuerNotReady(f"the signing key of CertificateAuthority {name} is not there (yet)")
        entry = self._entries.get(uid)
        versions = (secret.metadata.resource_version, authority.status.certificate)
        if entry is None or entry[:2] != versions:
            self._entries.pop(uid, None)
            self._forget_deleted()
            entry = self._entries[uid] = _Entry(*versions, issuer_from(secret, authority))
        return entry.issuer

    def _forget_deleted(self) -> None:
        """Let go of keys whose Secret is gone: nobody may ask for those CAs again."""
        for uid in tuple(self._entries):
            if self._secrets.get(self._namespace, signing_key_name(uid)) is None:
                del self._entries[uid]
