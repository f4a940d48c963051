"""What outlived its owner: Secrets of the release namespace, issuers of profiles with their keys, published roots.

Owner references do not cross namespaces, and a finalizer would leave users' objects stuck whenever the operator is
down. So a Secret says whose it is, and is swept when that resource is gone. A signing key is worth more than tidiness:
nothing goes before the API server has been asked for the very resource that the Secret names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kms.resources.kinds import AUTHORITIES, CLUSTER_ISSUERS, CREDENTIALS, ISSUERS, PROFILES, SECRETS, Kind
from kms.resources.meta import Resource
from kms.resources.secret_names import COMPONENT, ISSUER_KEY, OWNER, OWNER_UID, SIGNING_KEY, TRUST, VERIFICATION_KEY
from kms_operator.plan import Manifest
from kms_operator.reconcilers.trust_distribution import published
from kms_operator.snapshot import Key, Snapshot, is_managed

_OWNER = re.compile(r"(\S+) ([^/\s]+)/([^/\s]+)")
_KINDS: dict[str | None, Kind[Any]] = {
    SIGNING_KEY: AUTHORITIES,
    VERIFICATION_KEY: CREDENTIALS,
    ISSUER_KEY: PROFILES,
    TRUST: AUTHORITIES,
}


@dataclass(frozen=True, slots=True)
class OrphanedObject:
    """An object whose owner is not known here, and where to ask whether that exists."""

    manifest: Manifest
    kind: Kind[Any]
    owner: Key
    uid: str


def strays(snapshot: Snapshot) -> tuple[OrphanedObject, ...]:
    """What may have lost its owner, issuers before their keys.

    Only what says by label and annotation whose it is, and only for namespaces that this operator watches: another
    installation may share the release namespace.
    """
    owners = (snapshot.authorities, snapshot.credentials, snapshot.profiles)
    alive = {each.metadata.uid for known in owners for each in known.values()}
    found = (_stray(each) for each in _candidates(snapshot))
    return tuple(
        each
        for each in found
        if each is not None and each.uid not in alive and snapshot.settings.watches(each.owner[0])
    )


def _candidates(snapshot: Snapshot) -> Iterator[Manifest]:
    for issuer in snapshot.issuers.values():
        yield Manifest(ISSUERS if issuer.metadata.namespace else CLUSTER_ISSUERS, issuer)
    yield from published(snapshot)
    for secret in snapshot.secrets.values():
        beside_issuer = secret.metadata.labels.get(COMPONENT) == ISSUER_KEY
        if beside_issuer or secret.metadata.namespace == snapshot.settings.namespace:
            yield Manifest(SECRETS, secret)


def _stray(manifest: Manifest) -> OrphanedObject | None:
    object_: Resource = manifest.object
    labels = object_.metadata.labels
    kind = _KINDS.get(labels.get(COMPONENT))
    uid = labels.get(OWNER_UID)
    named = _OWNER.fullmatch(object_.metadata.annotations.get(OWNER, ""))
    if not is_managed(object_) or kind is None or not uid or named is None or named[1] != kind.kind:
        return None
    return OrphanedObject(manifest, kind, (named[2], named[3]), uid)
