"""Objects that outlived their owner: keeps keys for a time, and deletes issuers of profiles and published roots.

Owner references do not cross namespaces, and a finalizer would block the deletion of users' objects while the operator
is down. So these objects name their owner by label and annotation. A signing key is worth more than tidiness: before
an object is changed or deleted, the API server is asked for its owner, even if the cache has it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from kms.clock import Entropy
from kms.resources.core import Secret
from kms.resources.kept import deleted_at, kept_until
from kms.resources.kinds import AUTHORITIES, CLUSTER_ISSUERS, CREDENTIALS, ISSUERS, PROFILES, SECRETS, Kind
from kms.resources.meta import Key, Resource
from kms.resources.secret_names import (
    AUTHORITY_NOTIFICATION_KEY,
    COMPONENT,
    ISSUER_CREDENTIALS,
    ISSUER_KEY,
    NOTIFICATION_KEY,
    OWNER,
    OWNER_UID,
    SIGNING_KEY,
    TRUST,
    VERIFICATION_KEY,
)
from kms_operator.indexes import OWNER as OWNED_BY
from kms_operator.indexes import UID
from kms_operator.objects import is_managed
from kms_operator.plan import Event, Manifest, Plan, earliest
from kms_operator.reconcilers.kept_keys import keep, owner_name
from kms_operator.reconcilers.trust_distribution import published_kinds
from kms_operator.snapshot import Read, Snapshot

_OWNER = re.compile(r"(\S+) ([^/\s]+)/([^/\s]+)")
MAXIMUM_KEPT = 1_000
"""Keys of each component that are kept for deleted owners of one namespace: it must not fill the release namespace."""
ENDING_AT_ONCE = 50
"""Keys that are kept and whose owners are read in one run: those that end first."""
_KEPT = frozenset({SIGNING_KEY, VERIFICATION_KEY})
"""Components that are kept for a time after their owner was deleted."""
_OWNER_KINDS: dict[str | None, Kind[Any]] = {
    SIGNING_KEY: AUTHORITIES,
    ISSUER_CREDENTIALS: AUTHORITIES,
    VERIFICATION_KEY: CREDENTIALS,
    ISSUER_KEY: PROFILES,
    TRUST: AUTHORITIES,
    NOTIFICATION_KEY: PROFILES,
    AUTHORITY_NOTIFICATION_KEY: AUTHORITIES,
}


@dataclass(frozen=True, slots=True)
class _Owned:
    """An object, and the owner that it names."""

    manifest: Manifest
    kind: Kind[Any]
    key: Key
    uid: str


def reads(owner: str | None, snapshot: Snapshot) -> Iterator[Read]:
    """The owners that are not in the cache with their UID: the one with the UID `owner`, or all.

    Of keys that are kept already, those that end first.
    """
    orphaned = [each for each in _find(owner, snapshot) if not _is_cached(each, snapshot)]
    kept = [(until, each) for each in orphaned if (until := _kept_until(each)) is not None]
    first = sorted(kept, key=itemgetter(0))[:ENDING_AT_ONCE]
    wanted = (*(each for each in orphaned if _kept_until(each) is None), *(each for _, each in first))
    owners = {(each.kind.plural, each.key): each for each in wanted}
    yield from (Read(each.kind, *each.key, live=True, optional=True) for each in owners.values())


def plan(owner: str | None, snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> Plan:  # noqa: ARG001 - all reconcilers are called alike
    """Delete the objects whose owner was read and does not exist, issuers before their keys; keep keys for a time.

    With the UID of one `owner` only its objects are looked at, so that a deletion does not cost a look at all Secrets;
    then the number of kept keys is not limited yet.
    """
    orphaned = [each for each in _find(owner, snapshot) if not _is_cached(each, snapshot)]
    delete = [each.manifest for each in orphaned if _key_of(each) is None and _is_gone(each, snapshot)]
    apply: list[Manifest] = []
    events: list[Event] = []
    ends: list[datetime] = []
    counts: Counter[tuple[Kind[Any], str]] = Counter()
    keys = [(secret, each) for each in orphaned if (secret := _key_of(each)) is not None]
    for secret, owned in sorted(keys, key=lambda each: _age(each[0])):
        until, is_gone = kept_until(secret.metadata), _is_gone(owned, snapshot)
        again = _deleted_again(secret, owned, snapshot)
        if until is None and not is_gone:
            continue  # its owner exists, or could not be read
        counts[owned.kind, owned.key[0]] += 1
        is_too_many = owner is None and counts[owned.kind, owned.key[0]] > MAXIMUM_KEPT
        is_over = is_too_many or (until is not None and until <= now and again is None)
        if is_gone and is_over:
            delete.append(owned.manifest)
            continue
        if until is None or (is_gone and again is not None):
            marked, until = keep(secret, snapshot.settings.deletion_retention, now=again or now)
            apply.append(replace(marked, part=owned.manifest.part))
            message = f"{owner_name(secret)} was deleted; its key is kept until {until:%Y-%m-%dT%H:%M:%SZ} in Secret"
            events.append(Event("KeyKept", f"{message} {secret.metadata.name}", "Warning"))
        ends.append(until)
    return Plan(delete=tuple(delete), apply=tuple(apply), events=tuple(events), requeue_at=earliest(*ends))


def _key_of(owned: _Owned) -> Secret | None:
    """The Secret with a key, which is kept for a time; None if the object is something else."""
    found = owned.manifest.object
    return found if isinstance(found, Secret) and found.metadata.labels.get(COMPONENT) in _KEPT else None


def _kept_until(owned: _Owned) -> datetime | None:
    secret = _key_of(owned)
    return kept_until(secret.metadata) if secret is not None else None


def _is_gone(owned: _Owned, snapshot: Snapshot) -> bool:
    return (owned.kind.plural, owned.key) in snapshot.live and not _exists(owned, snapshot)


def _deleted_again(secret: Secret, owned: _Owned, snapshot: Snapshot) -> datetime | None:
    """When another owner of the same name was deleted that has not taken the key over; None: none was."""
    since = deleted_at(secret.metadata)
    return snapshot.deletions.after((owned.kind.plural, owned.key), since) if since is not None else None


def _age(secret: Secret) -> datetime:
    """When the Secret was created: the keys that have existed for the longest time are kept first."""
    return secret.metadata.creation_timestamp or datetime.min.replace(tzinfo=UTC)


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
            yield from (_part(kind, each) for each in owned(kind))
    for secret in owned(SECRETS):
        beside_issuer = secret.metadata.labels.get(COMPONENT) == ISSUER_KEY
        if beside_issuer or secret.metadata.namespace == snapshot.settings.namespace:
            yield _part(SECRETS, secret)


def _part(kind: Kind[Any], object_: Resource) -> Manifest:
    """Return the object as a part of its own: one that the API server does not let go keeps no other."""
    return Manifest(kind, object_, part=f"{kind.plural} {object_.metadata.namespace}/{object_.metadata.name}")


def _parse_owner(manifest: Manifest) -> _Owned | None:
    object_: Resource = manifest.object
    labels = object_.metadata.labels
    kind = _OWNER_KINDS.get(labels.get(COMPONENT))
    uid = labels.get(OWNER_UID)
    named = _OWNER.fullmatch(object_.metadata.annotations.get(OWNER, ""))
    if not is_managed(object_) or kind is None or not uid or named is None or named[1] != kind.kind:
        return None
    return _Owned(manifest, kind, (named[2], named[3]), uid)
