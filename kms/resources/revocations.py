"""RevocationRecord: a revocation that outlives the order, the account, the profile and their namespace.

The server writes these in the release namespace, and nobody changes them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kms.resources.meta import ObjectMeta, Struct, Time


class CertificateRevocation(Struct, frozen=True, kw_only=True):
    """A revoked certificate. Key identifier, serial number and digest are in hexadecimal, as in the ACMEOrder."""

    authority_key_id: str = msgspec.field(name="authorityKeyID")
    serial_number: str
    public_key_digest: str | None = None
    not_after: Time
    time: Time
    reason: str


class AccountRevocation(Struct, frozen=True, kw_only=True):
    """An account that is deactivated or revoked: `thumbprints` of all keys that it has had open no other account."""

    state: Literal["deactivated", "revoked"]
    thumbprints: tuple[str, ...]


class RevocationRecordSpec(Struct, frozen=True, kw_only=True):
    """Exactly one of `certificate` and `account` is set. Immutable.

    `namespace` is that of the CA, the profile and the order. The record may be deleted after `until`.
    """

    namespace: str
    profile: str
    until: Time
    certificate: CertificateRevocation | None = None
    account: AccountRevocation | None = None


class RevocationRecord(Struct, frozen=True, kw_only=True):
    """`revrec`: a revoked certificate, or the keys of an account that must not be used again."""

    metadata: ObjectMeta
    spec: RevocationRecordSpec
