"""ACMEAccount: an account of an ACME client (RFC 8555, 7.1.2). Written by the server alone."""

from __future__ import annotations

import sys
from typing import Literal

import msgspec

from kms.resources.credentials import NameRules
from kms.resources.meta import GROUP, Key, LocalRef, ObjectMeta, Struct, Time

CLIENT_NAMESPACE = f"{GROUP}/client-namespace"
"""On an alias: the namespace of its account's clients if they are a tenant of the profile."""

AccountState = Literal["valid", "suspended", "deactivated", "revoked"]
"""The states of RFC 8555, and `suspended`: an administrator has stopped the account, which is shown as valid."""
LIVE_STATES: frozenset[AccountState | None] = frozenset({"valid", "suspended"})
"""The states of accounts that may still be used, now or later."""


class CredentialBinding(Struct, frozen=True, kw_only=True):
    """The EABCredential that opened the account, as of then. CredentialRecord has what it said later."""

    name: str
    namespace: str
    uid: str
    key_id: str = msgspec.field(name="keyID")
    names: NameRules | None = None
    profiles: tuple[str, ...] | None = None
    client_namespace: str | None = None
    shared: bool = False


class CredentialRecord(Struct, frozen=True, kw_only=True):
    """What the account's EABCredential said last, since `changed_at`: it outlives the credential.

    `uid` is that of the object that said so. `suspended` is also kept where `state` is Deleted, and where an object of
    the same name was made again.
    """

    state: Literal["Active", "Suspended", "Deleted"]
    uid: str
    changed_at: Time
    suspended: bool = False
    names: NameRules | None = None
    profiles: tuple[str, ...] | None = None
    client_namespace: str | None = None
    shared: bool = False


class CurrentKey(Struct, frozen=True, kw_only=True):
    """The key of an account since it was changed (RFC 8555, 7.3.5)."""

    jwk: str
    thumbprint: str
    changed_at: Time


class AccountSpec(Struct, frozen=True, kw_only=True):
    """Immutable. `key` is the public JWK in canonical JSON, `thumbprint` its digest (RFC 7638).

    With `alias_of` the object is not an account: it reserves the name of a later key of the account `alias_of`.
    """

    profile_ref: LocalRef
    key: str
    thumbprint: str
    external_account: CredentialBinding | None = None
    alias_of: LocalRef | None = None


class AccountStatus(Struct, frozen=True, kw_only=True):
    """The state machine. Without a state the account is not open yet: the server still claims a slot of the credential.

    `key` is set after a key change; `former_keys` are the thumbprints of all replaced keys. `contact_text` is for
    people: the contacts in one text.
    """

    state: AccountState | None = None
    key: CurrentKey | None = None
    former_keys: tuple[str, ...] = ()
    contact: tuple[str, ...] = ()
    contact_text: str | None = None
    terms_of_service_agreed: str | None = None
    suspended_at: Time | None = None
    deactivated_at: Time | None = None
    credential: CredentialRecord | None = None


class ACMEAccount(Struct, frozen=True, kw_only=True):
    """`acmeacct`: an ACME account, or an alias of one."""

    metadata: ObjectMeta
    spec: AccountSpec
    status: AccountStatus = AccountStatus()

    @property
    def credential(self) -> Key | None:
        """(namespace, name) of the EABCredential that the account follows."""
        binding = self.spec.external_account
        return None if binding is None else (sys.intern(binding.namespace), sys.intern(binding.name))

    @property
    def tenant(self) -> str:
        """The namespace of the clients if it is not the profile's, else "".

        Such clients are a tenant of the profile, and share what its namespace may use with other tenants.
        """
        binding, own = self.spec.external_account, self.metadata.namespace
        if binding is None:  # an alias, or an account without a credential
            return self.metadata.labels.get(CLIENT_NAMESPACE, "") if self.spec.alias_of is not None else ""
        # As in kms.resources.client_namespaces: only a credential beside its profile names another namespace.
        named = binding.client_namespace if binding.namespace == own else None
        clients = named or binding.namespace
        return clients if clients != own else ""

    @property
    def jwk(self) -> str:
        """The public key in force, a JWK in canonical JSON."""
        return self.status.key.jwk if self.status.key is not None else self.spec.key

    @property
    def thumbprint(self) -> str:
        """The thumbprint of the key in force."""
        return self.status.key.thumbprint if self.status.key is not None else self.spec.thumbprint
