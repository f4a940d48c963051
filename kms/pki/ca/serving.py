"""The TLS certificate of the ACME server, and the CA that signs it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import MappingProxyType

from cryptography import x509

from kms.pki.ca.internal import AuthorityTemplate, self_signed
from kms.pki.certificate import LeafTemplate, Signer, sign_leaf
from kms.pki.keys import PrivateKey, PublicKey
from kms.pki.names import Name

SERVING_USAGES = frozenset({"digital signature", "server auth"})
SERVING_AUTHORITY_NAME = "kms-acme serving CA"


def serving_authority(
    key: PrivateKey,
    *,
    serial: int,
    not_before: datetime,
    not_after: datetime,
    common_name: str = SERVING_AUTHORITY_NAME,
) -> x509.Certificate:
    """The root that clients of the ACME server trust; it signs end-entity certificates only."""
    template = AuthorityTemplate(
        common_name=common_name, serial=serial, not_before=not_before, not_after=not_after, path_length=0
    )
    return self_signed(template, key)


def serving_certificate(
    names: Sequence[Name],
    public_key: PublicKey,
    signer: Signer,
    *,
    serial: int,
    not_before: datetime,
    not_after: datetime,
    crl_url: str | None = None,
    ca_url: str | None = None,
) -> x509.Certificate:
    """The certificate of the ACME server itself, for these names; its subject is empty.

    `crl_url` and `ca_url` locate the revocation list and the certificate of the CA that signs it.

    Raises ValueError as `sign_leaf` does.
    """
    template = LeafTemplate(
        public_key=public_key,
        names=tuple(names),
        common_name=None,
        subject=MappingProxyType({}),
        usages=SERVING_USAGES,
        serial=serial,
        not_before=not_before,
        not_after=not_after,
        crl_url=crl_url,
        ca_url=ca_url,
    )
    return sign_leaf(template, signer)
