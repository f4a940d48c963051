"""The operator's cache of the cluster, with indexes. Lists, watches and the operator's own writes fill it.

The cache may lag behind. It never authorises a write: every write is a compare-and-swap, and an object that is not
cached is read from the API server before a reconciler treats it as absent. Of an ACMEAccount only an AccountSummary is
kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kms.cluster.resource_version import newer
from kms.resources.accounts import ACMEAccount
from kms.resources.authorities import CertificateAuthority
from kms.resources.credentials import EABCredential
from kms.resources.kinds import ACCOUNTS, AUTHORITIES, CREDENTIALS, PROFILES, SECRETS, Kind
from kms.resources.meta import ObjectMeta, Resource, key_of
from kms.resources.profiles import CertificateProfile
from kms.resources.secret_names import CREDENTIAL_UID, OWNER_UID
from kms_operator.kinds import OPTIONAL_KINDS, RECONCILED_KINDS, WATCHED_KINDS

Key = tuple[str, str]
"""(namespace, name)."""


@dataclass(frozen=True, slots=True)
class Unavailability:
    """Why an optional kind is not available: the reason and the message of a condition."""

    reason: str
    message: str


NOT_CHECKED = Unavailability("Pending", "not checked yet; the operator checks every minute")


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """What is kept of an ACMEAccount: the UID of its EABCredential, and whether the account is open."""

    metadata: ObjectMeta
    credential: str
    is_open: bool


def _owners(object_: Resource) -> Iterable[str]:
    owner = object_.metadata.labels.get(OWNER_UID)
    return {*(each.uid for each in object_.metadata.owner_references), *([owner] if owner else [])}


def _issuer(object_: CertificateAuthority | CertificateProfile) -> Iterable[Key]:
    if isinstance(object_, CertificateProfile):
        yield object_.metadata.namespace, object_.spec.issuer_ref.name
    elif object_.spec.internal is not None and object_.spec.internal.issuer_ref is not None:
        yield object_.metadata.namespace, object_.spec.internal.issuer_ref.name


def _order_profiles(profile: CertificateProfile) -> Iterable[Key]:
    acme = profile.spec.enrollment.acme
    return {(profile.metadata.namespace, each.profile_ref.name) for each in (acme.profiles if acme else ())}


def _open_account(account: AccountSummary) -> Iterable[str]:
    return (account.credential,) if account.is_open else ()


def _policy(profile: CertificateProfile) -> Iterable[Key]:
    yield profile.metadata.namespace, profile.spec.policy_ref.name


def _profile(credential: EABCredential) -> Iterable[Key]:
    yield credential.profile_key


def _secret(credential: EABCredential) -> Iterable[Key]:
    yield credential.metadata.namespace, credential.secret_name


UID, NAMESPACE, OWNER, ISSUER, POLICY, ORDER_PROFILE, PROFILE, SECRET, OPEN_ACCOUNT = (
    "uid",
    "namespace",
    "owner",
    "issuer",
    "policy",
    "orderProfile",
    "profile",
    "secret",
    "openAccount",
)
"""Names of indexes. OWNER has the UIDs of the label and of the owner references; others refer to a UID or a Key."""

_BY_UID = {UID: lambda each: (each.metadata.uid,)}
_BY_OWNER = {OWNER: _owners}
INDEXES: Mapping[str, Mapping[str, Callable[[Any], Iterable[Hashable]]]] = {
    **{each.plural: _BY_UID for each in RECONCILED_KINDS},
    **{each.plural: _BY_OWNER for each in (SECRETS, *OPTIONAL_KINDS)},
    AUTHORITIES.plural: {**_BY_UID, ISSUER: _issuer},
    PROFILES.plural: {**_BY_UID, ISSUER: _issuer, POLICY: _policy, ORDER_PROFILE: _order_profiles},
    CREDENTIALS.plural: {
        **_BY_UID,
        **_BY_OWNER,
        PROFILE: _profile,
        SECRET: _secret,
        NAMESPACE: lambda each: (each.metadata.namespace,),
    },
    ACCOUNTS.plural: {OPEN_ACCOUNT: _open_account},
}
"""Index functions by plural and name: the values under which an object is found."""


class _IndexedObjects:
    """Objects of one kind by key, and their keys by the values of each index."""

    def __init__(self, functions: Mapping[str, Callable[[Any], Iterable[Hashable]]]) -> None:
        self.by_key: dict[Key, Any] = {}
        self._functions = functions
        self._indexes: dict[str, dict[Hashable, dict[Key, None]]] = {name: {} for name in functions}

    def put(self, key: Key, object_: Any) -> None:
        self.pop(key)
        self.by_key[key] = object_
        for name, function in self._functions.items():
            for value in function(object_):
                self._indexes[name].setdefault(value, {})[key] = None

    def pop(self, key: Key) -> Any | None:
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
        return self._indexes[name].get(value, ())


class Cache:
    """The last known version of each object, by kind and (namespace, name)."""

    def __init__(self) -> None:
        kinds = (*WATCHED_KINDS, *OPTIONAL_KINDS)
        self._kinds = {each.plural: _IndexedObjects(INDEXES.get(each.plural, {})) for each in kinds}
        self._deleted: dict[tuple[str, Key], str] = {}
        self.unavailable: dict[str, Unavailability] = dict.fromkeys(
            (each.plural for each in OPTIONAL_KINDS), NOT_CHECKED
        )
        """Optional kinds that are not available, by plural."""
        self.served: dict[str, Kind[Any]] = {}
        """The version of each kind that was listed last, by plural."""

    def get(self, kind: Kind[Any], key: Key) -> Any | None:
        """Return the object if it is cached; of an ACMEAccount its AccountSummary."""
        return self._kinds[kind.plural].by_key.get(key)

    def all(self, kind: Kind[Any]) -> Mapping[Key, Any]:
        """Return all cached objects of the kind by (namespace, name). The mapping is live."""
        return self._kinds[kind.plural].by_key

    def by_index(self, kind: Kind[Any], index: str, value: Hashable) -> list[Any]:
        """Return the objects of the kind that the index has under `value`."""
        objects = self._kinds[kind.plural]
        return [objects.by_key[key] for key in objects.keys_by(index, value)]

    def open_accounts(self, credential: str) -> int:
        """Count the open accounts of the EABCredential with this UID."""
        return sum(1 for _ in self._kinds[ACCOUNTS.plural].keys_by(OPEN_ACCOUNT, credential))

    def put(self, kind: Kind[Any], object_: Resource, *, live: bool = False) -> bool:
        """Store the object. Returns False if this version or a later one is cached.

        `live`: the object was read from the API server just now. It then outweighs an event that said that the object
        was deleted or lost the label that is watched.
        """
        key = key_of(object_)
        known = self.get(kind, key)
        version = object_.metadata.resource_version
        if known is not None and not newer(version, known.metadata.resource_version):
            return False
        deleted = self._deleted.get((kind.plural, key))
        if deleted is not None and not live and not newer(version, deleted):
            return False
        self._deleted.pop((kind.plural, key), None)
        self._kinds[kind.plural].put(key, _summarize(object_))
        return True

    def remove(self, kind: Kind[Any], object_: Resource) -> bool:
        """Drop an object that was deleted at its resourceVersion. Returns False if nothing or a later one is cached.

        The version is remembered, so that an answer that was under way does not bring the object back.
        """
        key = key_of(object_)
        known = self.get(kind, key)
        version = object_.metadata.resource_version
        if known is not None and newer(known.metadata.resource_version, version):
            return False
        self._deleted[kind.plural, key] = version
        return self._kinds[kind.plural].pop(key) is not None

    def replace(
        self, kind: Kind[Any], objects: Iterable[Resource], resource_version: str
    ) -> tuple[list[Any], list[Any]]:
        """Replace all objects of the kind by a complete list. Returns what is new or changed, and what is gone."""
        self.served[kind.plural] = kind
        listed = {key_of(each): each for each in objects}
        deleted = [
            known
            for key, known in self.all(kind).items()
            if key not in listed and not newer(known.metadata.resource_version, resource_version)
        ]
        for each in deleted:
            self._kinds[kind.plural].pop(key_of(each))
        # The list does not contain what was deleted before it, so those deletions need not be remembered.
        self._deleted = {
            (plural, key): version
            for (plural, key), version in self._deleted.items()
            if plural != kind.plural or newer(version, resource_version)
        }
        return [each for each in listed.values() if self.put(kind, each)], deleted

    def set_unavailable(self, kind: Kind[Any], unavailability: Unavailability | None) -> bool:
        """Record why an optional kind is not available; None: it is. Returns False if that was known."""
        if self.unavailable.get(kind.plural) == unavailability:
            return False
        if unavailability is None:
            del self.unavailable[kind.plural]
        else:
            self.unavailable[kind.plural] = unavailability
        return True


def _summarize(object_: Resource) -> Resource:
    if not isinstance(object_, ACMEAccount):
        return object_
    credential = object_.metadata.labels.get(CREDENTIAL_UID, "")
    return AccountSummary(object_.metadata, credential, object_.status.state is not None)
