"""The objects that the operator knows, by kind, key and index: the read side of the cache.

Reconcilers see this side only. Of an ACMEAccount only an AccountSummary is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from kms.contract import READY, RENEWAL_DUE
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.credentials import EABCredential
from kms.resources.kept import parse_served_profiles
from kms.resources.kinds import ACCOUNTS, AUTHORITIES, CREDENTIALS, PROFILES, SECRETS, Kind
from kms.resources.meta import Key, ObjectMeta, Resource, Unreadable, condition, is_true, key_of
from kms.resources.profiles import CertificateProfile
from kms.resources.retained import (
    CREDENTIAL_LIMIT_REACHED,
    PROFILE_LIMIT_REACHED,
    SECRET_LIMIT_REACHED,
    is_reduced,
)
from kms.resources.secret_names import (
    COMPONENT,
    ISSUER_CREDENTIALS,
    OWNER_UID,
    SIGNING_KEY,
    VERIFICATION_KEY,
    signing_key_name,
)
from kms.resources.secret_names import OWNER as OWNER_ANNOTATION
from kms_operator.kinds import OPTIONAL_KINDS, RECONCILED_KINDS, WATCHED_KINDS


@dataclass(frozen=True, slots=True)
class Unavailability:
    """Why an optional kind is not available: the reason and the message of a condition."""

    reason: str
    message: str


NOT_CHECKED = Unavailability("Pending", "not checked yet; the operator checks every minute")


KEY_ID_IN_USE = "KeyIDInUse"
"""Reason of Ready False of a credential that waits for a key identifier."""


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
    """The policy, unless the profile is beyond a limit: it then uses none."""
    if not is_reduced(profile):
        yield profile.metadata.namespace, profile.spec.policy_ref.name


def _profile(credential: EABCredential) -> Iterable[Key]:
    yield credential.profile_key


def _namespaces(credential: EABCredential) -> Iterable[str]:
    """The namespaces by which the profile decides: of the credential, and of its clients."""
    return {credential.metadata.namespace, credential.spec.client_namespace or credential.metadata.namespace}


def _secret(credential: EABCredential) -> Iterable[Key]:
    yield credential.metadata.namespace, credential.secret_name


def _waiting(resource: CertificateAuthority | CertificateProfile | EABCredential) -> Iterable[Hashable]:
    """What the resource waits for: a key identifier of a profile, a place on it, for a Secret, or in a namespace."""
    found = condition(resource.status.conditions, READY)
    if found is None or found.status == "True":
        return
    if isinstance(resource, EABCredential) and found.reason in {KEY_ID_IN_USE, CREDENTIAL_LIMIT_REACHED}:
        yield found.reason, resource.profile_key
    elif found.reason == PROFILE_LIMIT_REACHED:
        yield PROFILE_LIMIT_REACHED, resource.metadata.namespace
    elif found.reason == SECRET_LIMIT_REACHED:
        yield SECRET_LIMIT_REACHED, ""
        yield SECRET_LIMIT_REACHED, resource.metadata.namespace


def _in_force(profile: CertificateProfile) -> Iterable[str]:
    found = condition(profile.status.conditions, READY)
    return (profile.metadata.namespace,) if found is not None and found.reason != PROFILE_LIMIT_REACHED else ()


def _holder(credential: EABCredential) -> Iterable[tuple[Key, str]]:
    if credential.status.key_id is not None:
        yield credential.profile_key, ""
        yield credential.profile_key, credential.metadata.namespace


def owner_namespace(secret: Secret) -> str | None:
    """The namespace of the resource to which an internal Secret belongs; None if it belongs to none."""
    if secret.metadata.labels.get(COMPONENT) not in {SIGNING_KEY, VERIFICATION_KEY, ISSUER_CREDENTIALS}:
        return None
    _, _, owner = secret.metadata.annotations.get(OWNER_ANNOTATION, "").partition(" ")
    return owner.partition("/")[0] or None


def _internal(secret: Secret) -> Iterable[tuple[str, str]]:
    if namespace := owner_namespace(secret):
        yield secret.metadata.namespace, ""
        yield secret.metadata.namespace, namespace


def _served(secret: Secret) -> Iterable[str]:
    if secret.metadata.labels.get(COMPONENT) == SIGNING_KEY:
        yield from parse_served_profiles(secret.metadata)


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
WAITING, HOLDER, INTERNAL, IN_FORCE, SERVED = "waiting", "holder", "internal", "inForce", "served"
"""Names of indexes. OWNER has the UIDs in the label and in the owner references, SIGNING_SECRET names of Secrets.
WAITING has what a resource waits for, HOLDER the profiles of credentials that have a key (with
their namespace, and with an empty one for all), and INTERNAL the namespace of
a Secret with that of its owner, and with an empty one for all. IN_FORCE has the namespaces of profiles that were
reconciled and are within the limit. OWNER_NAME has what the annotation of a Secret says
(`CertificateAuthority pki/issuing`), SERVED the digests of the profiles that a signing key has served."""

_BY_UID = {UID: lambda each: (each.metadata.uid,)}
_BY_OWNER = {OWNER: _owners}
INDEXES: Mapping[str, Mapping[str, Callable[[Any], Iterable[Hashable]]]] = {
    **{each.plural: _BY_UID for each in RECONCILED_KINDS},
    **{each.plural: _BY_OWNER for each in OPTIONAL_KINDS},
    AUTHORITIES.plural: {
        **_BY_UID,
        ISSUER: _issuer,
        WAITING: _waiting,
        SIGNING_SECRET: lambda each: (signing_key_name(each.metadata.uid),),
    },
    PROFILES.plural: {
        **_BY_UID,
        ISSUER: _issuer,
        POLICY: _policy,
        ORDER_PROFILE: _order_profiles,
        WAITING: _waiting,
        IN_FORCE: _in_force,
    },
    CREDENTIALS.plural: {
        **_BY_UID,
        **_BY_OWNER,
        PROFILE: _profile,
        SECRET: _secret,
        WAITING: _waiting,
        HOLDER: _holder,
        NAMESPACE: _namespaces,
    },
    SECRETS.plural: {**_BY_OWNER, OWNER_NAME: _owner_name, INTERNAL: _internal, SERVED: _served},
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

    def keys_by(self, name: str, value: Hashable) -> Collection[Key]:
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
        self._announced = IndexedObjects(INDEXES[SECRETS.plural])
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

    def count(self, kind: Kind[Any], index: str, value: Hashable) -> int:
        """Count the objects of the kind that the index has under `value`."""
        return len(self._kinds[kind.plural].keys_by(index, value))

    @contextmanager
    def announced(self, secrets: Iterable[Secret]) -> Iterator[None]:
        """Count these Secrets, which one of several workers is about to create, as if they existed."""
        added = [(key_of(each), each) for each in secrets]
        for key, each in added:
            self._announced.put(key, each)
        try:
            yield
        finally:
            for key, _ in added:
                self._announced.pop(key)

    def internal_secrets(self, release: str, owner_namespace: str = "") -> int:
        """Count the Secrets of the release namespace that belong to resources: of one namespace, or of all."""
        owner = (release, owner_namespace)
        cached = self._kinds[SECRETS.plural].keys_by(INTERNAL, owner)
        announced = self._announced.keys_by(INTERNAL, owner)
        return len(cached) + sum(key not in cached for key in announced)

    def other_holders(self, credential: EABCredential, *, namespace: str = "") -> int:
        """Count the other credentials of the same profile that have a key, or are about to get one.

        All of them, or those of one `namespace`.
        """
        holders = set[str]()
        profile = credential.profile_key
        keys = self._kinds[CREDENTIALS.plural].keys_by(HOLDER, (profile, namespace))
        for secret in self._announced.by_key.values():
            owner = secret.metadata.labels.get(OWNER_UID)
            for each in self.by_index(CREDENTIALS, UID, owner):
                counts = each.profile_key == profile and namespace in {"", each.metadata.namespace}
                if counts and key_of(each) not in keys:
                    holders.add(each.metadata.uid)
        holders.discard(credential.metadata.uid)
        return len(keys) - (key_of(credential) in keys) + len(holders)

    def first_waiting(self, kind: Kind[Any], waiting_for: Hashable, maximum: int) -> list[Any]:
        """Return the first resources of the kind that the index WAITING has under `waiting_for`."""
        objects = self._kinds[kind.plural]
        return [objects.by_key[key] for key in islice(objects.keys_by(WAITING, waiting_for), maximum)]

    def open_accounts(self, credential: Key) -> int:
        """Count the open accounts of an EABCredential, also of an earlier object of the same namespace and name."""
        return sum(1 for _ in self._kinds[ACCOUNTS.plural].keys_by(OPEN_ACCOUNT, credential))

    def renewals_due(self) -> int:
        """Count the CAs by request that need a new certificate."""
        return sum(is_true(each.status.conditions, RENEWAL_DUE) for each in self.all(AUTHORITIES).values())
