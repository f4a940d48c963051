"""The objects that the operator knows, by kind, key and index: the read side of the cache.

Reconcilers see this side only. Of an ACMEAccount only an AccountSummary is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kms.resources.authorities import CertificateAuthority
from kms.resources.credentials import EABCredential
from kms.resources.kinds import ACCOUNTS, AUTHORITIES, CREDENTIALS, PROFILES, SECRETS, Kind
from kms.resources.meta import Key, ObjectMeta, Resource, Unreadable
from kms.resources.profiles import CertificateProfile
from kms.resources.secret_names import OWNER as OWNER_ANNOTATION
from kms.resources.secret_names import OWNER_UID, signing_key_name
from kms_operator.kinds import OPTIONAL_KINDS, RECONCILED_KINDS, WATCHED_KINDS


@dataclass(frozen=True, slots=True)
class Unavailability:
    """Why an optional kind is not available: the reason and the message of a condition."""

    reason: str
    message: str


NOT_CHECKED = Unavailability("Pending", "not checked yet; the operator checks every minute")


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """The part of an ACMEAccount that is cached: its EABCredential by (namespace, name), and whether it is open."""

    metadata: ObjectMeta
    credential: Key | None
    is_open: bool


def _owners(object_: Resource) -> Iterable[str]:
    owner = object_.metadata.labels.get(OWNER_UID)
    return {*(each.uid for each in object_.metadata.owner_references), *([owner] if owner else [])}


def _owner_name(object_: Resource) -> Iterable[str]:
    name = object_.metadata.annotations.get(OWNER_ANNOTATION)
    return (name,) if name else ()


def _issuer(object_: CertificateAuthority | CertificateProfile) -> Iterable[Key]:
    if isinstance(object_, CertificateProfile):
        yield object_.metadata.namespace, object_.spec.issuer_ref.name
    elif object_.spec.internal is not None and object_.spec.internal.issuer_ref is not None:
        yield object_.metadata.namespace, object_.spec.internal.issuer_ref.name


def _order_profiles(profile: CertificateProfile) -> Iterable[Key]:
    acme = profile.spec.enrollment.acme
    return {(profile.metadata.namespace, each.profile_ref.name) for each in (acme.profiles if acme else ())}


def _open_account(account: AccountSummary) -> Iterable[Key]:
    return (account.credential,) if account.is_open and account.credential is not None else ()


def _policy(profile: CertificateProfile) -> Iterable[Key]:
    yield profile.metadata.namespace, profile.spec.policy_ref.name


def _profile(credential: EABCredential) -> Iterable[Key]:
    yield credential.profile_key


def _namespaces(credential: EABCredential) -> Iterable[str]:
    """The namespaces by which the profile decides: of the credential, and of its clients."""
    return {credential.metadata.namespace, credential.spec.client_namespace or credential.metadata.namespace}


def _secret(credential: EABCredential) -> Iterable[Key]:
    yield credential.metadata.namespace, credential.secret_name


UID, NAMESPACE, OWNER, OWNER_NAME, ISSUER, POLICY, ORDER_PROFILE, PROFILE, SECRET, SIGNING_SECRET, OPEN_ACCOUNT = (
    "uid",
    "namespace",
    "owner",
    "ownerName",
    "issuer",
    "policy",
    "orderProfile",
    "profile",
    "secret",
    "signingSecret",
    "openAccount",
)
"""Names of indexes. OWNER has the UIDs in the label and in the owner references, OWNER_NAME what the annotation says
(`CertificateAuthority pki/issuing`), SIGNING_SECRET names of Secrets."""

_BY_UID = {UID: lambda each: (each.metadata.uid,)}
_BY_OWNER = {OWNER: _owners}
INDEXES: Mapping[str, Mapping[str, Callable[[Any], Iterable[Hashable]]]] = {
    **{each.plural: _BY_UID for each in RECONCILED_KINDS},
    **{each.plural: _BY_OWNER for each in OPTIONAL_KINDS},
    SECRETS.plural: {**_BY_OWNER, OWNER_NAME: _owner_name},
    AUTHORITIES.plural: {
        **_BY_UID,
        ISSUER: _issuer,
        SIGNING_SECRET: lambda each: (signing_key_name(each.metadata.uid),),
    },
    PROFILES.plural: {**_BY_UID, ISSUER: _issuer, POLICY: _policy, ORDER_PROFILE: _order_profiles},
    CREDENTIALS.plural: {
        **_BY_UID,
        **_BY_OWNER,
        PROFILE: _profile,
        SECRET: _secret,
        NAMESPACE: _namespaces,
    },
    ACCOUNTS.plural: {OPEN_ACCOUNT: _open_account},
}
"""Index functions by plural and name: the values under which an object is found."""


class IndexedObjects:
    """Objects of one kind by key, and their keys by the values of each index."""

    def __init__(self, functions: Mapping[str, Callable[[Any], Iterable[Hashable]]]) -> None:
        self.by_key: dict[Key, Any] = {}
        self._functions = functions
        self._indexes: dict[str, dict[Hashable, dict[Key, None]]] = {name: {} for name in functions}

    def put(self, key: Key, object_: Any) -> None:
        """Store the object and index it."""
        self.pop(key)
        self.by_key[key] = object_
        for name, function in self._functions.items():
            for value in function(object_):
                self._indexes[name].setdefault(value, {})[key] = None

    def pop(self, key: Key) -> Any | None:
        """Drop the object and its index entries; returns it if there was one."""
        object_ = self.by_key.pop(key, None)
        if object_ is not None:
            for name, function in self._functions.items():
                for value in function(object_):
                    keys = self._indexes[name][value]
                    keys.pop(key, None)
                    if not keys:
                        del self._indexes[name][value]
        return object_

    def keys_by(self, name: str, value: Hashable) -> Iterable[Key]:
        """Return the keys that the index has under `value`."""
        return self._indexes[name].get(value, ())


class ObjectIndex:
    """The last known version of each object, by kind and (namespace, name)."""

    def __init__(self) -> None:
        kinds = (*WATCHED_KINDS, *OPTIONAL_KINDS)
        self._kinds = {each.plural: IndexedObjects(INDEXES.get(each.plural, {})) for each in kinds}
        self.unavailable: dict[str, Unavailability] = dict.fromkeys(
            (each.plural for each in OPTIONAL_KINDS), NOT_CHECKED
        )
        """Optional kinds that are not available, by plural."""
        self._unreadable: dict[str, dict[Key, Unreadable]] = {each.plural: {} for each in kinds}
        self.served: dict[str, Kind[Any]] = {}
        """The version of each kind that was listed last, by plural."""

    def get(self, kind: Kind[Any], key: Key) -> Any | None:
        """Return the object if it is cached; of an ACMEAccount its AccountSummary."""
        return self._kinds[kind.plural].by_key.get(key)

    def unreadable(self, kind: Kind[Any], key: Key) -> Unreadable | None:
        """Return what is known of the object if it exists and does not fit its model. It is not cached then."""
        return self._unreadable[kind.plural].get(key)

    def is_unreadable(self, kind: Kind[Any], uid: str) -> bool:
        """Whether an object with that UID exists and does not fit its model."""
        return any(each.metadata.uid == uid for each in self._unreadable[kind.plural].values())

    def all(self, kind: Kind[Any]) -> Mapping[Key, Any]:
        """Return all cached objects of the kind by (namespace, name). The mapping is live."""
        return self._kinds[kind.plural].by_key

    def by_index(self, kind: Kind[Any], index: str, value: Hashable) -> list[Any]:
        """Return the objects of the kind that the index has under `value`."""
        objects = self._kinds[kind.plural]
        return [objects.by_key[key] for key in objects.keys_by(index, value)]

    def open_accounts(self, credential: Key) -> int:
        """Count the open accounts of an EABCredential, also of an earlier object of the same namespace and name."""
        return sum(1 for _ in self._kinds[ACCOUNTS.plural].keys_by(OPEN_ACCOUNT, credential))
