"""Deletes objects that outlived their owner: internal Secrets, issuers of profiles with their keys, published roots.

Owner references do not cross namespaces, and a finalizer would block the deletion of users' objects while the operator
is down. So these objects name their owner by label and annotation. A signing key is worth more than tidiness: before
an object is deleted, the API server is asked for its owner, even if the cache has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kms.clock import Entropy
from kms.resources.kinds import AUTHORITIES, CLUSTER_ISSUERS, CREDENTIALS, ISSUERS, PROFILES, SECRETS, Kind
from kms.resources.meta import Key, Resource
from kms.resources.secret_names import COMPONENT, ISSUER_KEY, OWNER, OWNER_UID, SIGNING_KEY, TRUST, VERIFICATION_KEY
from kms_operator.indexes import OWNER as OWNED_BY
from kms_operator.indexes import UID
from kms_operator.objects import is_managed
from kms_operator.plan import Manifest, Plan
from kms_operator.reconcilers.trust_distribution import published_kinds
from kms_operator.snapshot import Read, Snapshot

_OWNER = re.compile(r"(\S+) ([^/\s]+)/([^/\s]+)")
_OWNER_KINDS: dict[str | None, Kind[Any]] = {
    SIGNING_KEY: AUTHORITIES,
    VERIFICATION_KEY: CREDENTIALS,
    ISSUER_KEY: PROFILES,
    TRUST: AUTHORITIES,
}


@dataclass(frozen=True, slots=True)
class _Owned:
    """An object, and the owner that it names."""

    manifest: Manifest
    kind: Kind[Any]
    key: Key
    uid: str


def reads(owner: str | None, snapshot: Snapshot) -> Iterator[Read]:
    """The owners that are not in the cache with their UID: the one with the UID `owner`, or all."""
    owners = {(each.kind.plural, each.key): each for each in _find(owner, snapshot) if not _is_cached(each, snapshot)}
    yield from (Read(each.kind, *each.key, live=True, optional=True) for each in owners.values())


def plan(owner: str | None, snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> Plan:  # noqa: ARG001 - all reconcilers are called alike
    """Delete the objects whose owner was read and does not exist, issuers before their keys.

    With the UID of one `owner` only its objects are looked at, so that a deletion does not cost a look at all Secrets.
    """
    return Plan(
        delete=tuple(
            each.manifest
            for each in _find(owner, snapshot)
            if (each.kind.plural, each.key) in snapshot.live
            and not _is_cached(each, snapshot)
            and not _exists(each, snapshot)
        )
    )


def _is_cached(owned: _Owned, snapshot: Snapshot) -> bool:
    return bool(snapshot.index.by_index(owned.kind, UID, owned.uid))


def _exists(owned: _Owned, snapshot: Snapshot) -> bool:
    """Whether the owner exists, be it unreadable."""
    owner = snapshot.get(owned.kind, owned.key) or snapshot.unreadable(owned.kind, owned.key)
    return owner is not None and owner.metadata.uid == owned.uid


def _find(owner: str | None, snapshot: Snapshot) -> Iterator[_Owned]:
    """Find the objects that name an owner by label and annotation.

    Only owners in namespaces that this operator watches: another installation may share the release namespace.
    """
    for manifest in _candidates(owner, snapshot):
        found = _parse_owner(manifest)
        if found is not None and snapshot.settings.watches(found.key[0]):
            yield found


def _candidates(owner: str | None, snapshot: Snapshot) -> Iterator[Manifest]:
    def owned(kind: Kind[Any]) -> Iterable[Any]:
        return snapshot.all(kind) if owner is None else snapshot.by_index(kind, OWNED_BY, owner)

    for kind in (ISSUERS, CLUSTER_ISSUERS, *published_kinds(snapshot)):
        if snapshot.unavailable(kind) is None:
            yield from (Manifest(kind, each) for each in owned(kind))
    for secret in owned(SECRETS):
        beside_issuer = secret.metadata.labels.get(COMPONENT) == ISSUER_KEY
        if beside_issuer or secret.metadata.namespace == snapshot.settings.namespace:
            yield Manifest(SECRETS, secret)


def _parse_owner(manifest: Manifest) -> _Owned | None:
    object_: Resource = manifest.object
    labels = object_.metadata.labels
    kind = _OWNER_KINDS.get(labels.get(COMPONENT))
    uid = labels.get(OWNER_UID)
    named = _OWNER.fullmatch(object_.metadata.annotations.get(OWNER, ""))
    if not is_managed(object_) or kind is None or not uid or named is None or named[1] != kind.kind:
        return None
    return _Owned(manifest, kind, (named[2], named[3]), uid)
