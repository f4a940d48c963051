"""ACMEAccount: an account of an ACME client (RFC 8555, 7.1.2). Written by the server alone."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from kms.resources.credentials import NameRules
from kms.resources.meta import LocalRef, ObjectMeta, Struct

AccountState = Literal["valid", "deactivated", "revoked"]


class CredentialBinding(Struct, frozen=True, kw_only=True):
    """The EABCredential that opened the account, as it was then; `names` and `profiles` outlive the credential."""

    name: str
    namespace: str
    uid: str
    key_id: str = msgspec.field(name="keyID")
    names: NameRules | None = None
    profiles: tuple[str, ...] | None = None


class AccountSpec(Struct, frozen=True, kw_only=True):
    """Never changes: whose key it is. `key` is the public JWK in canonical JSON, `thumbprint` its RFC 7638 digest."""

    profile_ref: LocalRef
    key: str
    thumbprint: str
    external_account: CredentialBinding | None = None


class AccountStatus(Struct, frozen=True, kw_only=True):
    """The state machine. Without a state the account is not open yet: its place under the credential is claimed."""

    state: AccountState | None = None
    contact: tuple[str, ...] = ()
    terms_of_service_agreed: str | None = None
    deactivated_at: datetime | None = None


class ACMEAccount(Struct, frozen=True, kw_only=True):
    """`acmeacct`: an ACME account."""

    metadata: ObjectMeta
    spec: AccountSpec
    status: AccountStatus = AccountStatus()
