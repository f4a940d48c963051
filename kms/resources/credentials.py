"""EABCredential: lets clients open accounts on one profile."""

from __future__ import annotations

import msgspec

from kms.resources.meta import Condition, NamespacedRef, ObjectMeta, Struct, Time
from kms.resources.policies import DNSNameRules, ValueRules
from kms.resources.profiles import NamespaceNames


class NameRules(Struct, frozen=True, kw_only=True):
    """Narrows the policy of the profile for the accounts of one credential."""

    dns_names: DNSNameRules | None = None
    ip_addresses: ValueRules | None = None


class CredentialSpec(Struct, frozen=True, kw_only=True):
    """The profile of the credential, and its limits. `profiles` of None: all order profiles of the directory.

    `client_namespace` is where its clients are, if that is not the credential's namespace; only a credential beside its
    profile may name another one. With `shared`, clients of several namespaces use the credential.
    """

    profile_ref: NamespacedRef
    secret_name: str | None = None
    expires_at: Time | None = None
    maximum_accounts: int | None = None
    suspended: bool = False
    names: NameRules | None = None
    profiles: tuple[str, ...] | None = None
    client_namespace: str | None = None
    shared: bool = False


class CredentialStatus(Struct, frozen=True, kw_only=True):
    """The key identifier in force, how many accounts it has opened, and the names that the profile allows them.

    `names` is for people; the server decides by the profile itself.
    """

    observed_generation: int | None = None
    key_id: str | None = msgspec.field(default=None, name="keyID")
    secret_name: str | None = None
    accounts: int | None = None
    names: NamespaceNames | None = None
    conditions: tuple[Condition, ...] = ()


class EABCredential(Struct, frozen=True, kw_only=True):
    """`eab`: a credential for external account binding (RFC 8555, 7.3.4)."""

    metadata: ObjectMeta
    spec: CredentialSpec
    status: CredentialStatus = CredentialStatus()

    @property
    def secret_name(self) -> str:
        """The Secret with the key, beside the credential."""
        return self.spec.secret_name or f"{self.metadata.name}-eab"

    @property
    def profile_key(self) -> tuple[str, str]:
        """(namespace, name) of the profile."""
        return self.spec.profile_ref.namespace or self.metadata.namespace, self.spec.profile_ref.name
