"""What has been known of the cluster. KopfWatch, lists and our own writes feed it; reconciliations read it.

It may lag behind; that never authorises anything, because every write is a compare-and-swap and what seems absent is
asked for before it is believed. Accounts are not kept, only which credential each belongs to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kms.cluster.resource_version import newer
from kms.resources.accounts import ACMEAccount
from kms.resources.core import Secret
from kms.resources.kinds import (
    ACCOUNTS,
    AUTHORITIES,
    BUNDLES,
    CLUSTER_ISSUERS,
    CLUSTER_TRUST_BUNDLES,
    CONFIG_MAPS,
    CREDENTIALS,
    ISSUERS,
    NAMESPACES,
    POLICIES,
    PROFILES,
    SECRETS,
    Kind,
)
from kms.resources.meta import ObjectMeta, Resource, key_of
from kms.resources.secret_names import CREDENTIAL_UID
from kms_operator.settings import OperatorSettings
from kms_operator.snapshot import Key, Snapshot, Unavailability

WATCHED_KINDS: tuple[Kind[Any], ...] = (AUTHORITIES, POLICIES, PROFILES, CREDENTIALS, SECRETS, ACCOUNTS, NAMESPACES)

TRUST_KINDS: tuple[Kind[Any], ...] = (CONFIG_MAPS, BUNDLES, CLUSTER_TRUST_BUNDLES[0])
OPTIONAL_KINDS: tuple[Kind[Any], ...] = (CLUSTER_ISSUERS, ISSUERS, *TRUST_KINDS)
"""Kinds that need not be there, or for us: they are listed from time to time, not watched."""
NOT_CHECKED = Unavailability("Pending", "not checked yet; the operator checks every minute")


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """What is kept of an ACMEAccount: whose credential it was opened with, and whether it is open."""

    metadata: ObjectMeta
    credential: str
    is_open: bool


@dataclass(slots=True)
class Cache:
    """The last known version of each object, by kind and (namespace, name)."""

    settings: OperatorSettings
    _objects: dict[str, dict[Key, Any]] = field(
        default_factory=lambda: {each.plural: {} for each in (*WATCHED_KINDS, *OPTIONAL_KINDS)}
    )
    _gone: dict[tuple[str, Key], str] = field(default_factory=dict)
    _open: Counter[str] = field(default_factory=Counter)
    unavailable: dict[str, Unavailability] = field(
        default_factory=lambda: dict.fromkeys((each.plural for each in OPTIONAL_KINDS), NOT_CHECKED)
    )
    served: dict[str, Kind[Any]] = field(default_factory=dict)
    """The version of a kind that was listed last."""

    def get(self, kind: Kind[Any], key: Key) -> Any | None:
        """The object as last known; an ACMEAccount as `AccountSummary`."""
        return self._objects[kind.plural].get(key)

    def all(self, kind: Kind[Any]) -> Mapping[Key, Any]:
        """All objects of that kind, by (namespace, name)."""
        return self._objects[kind.plural]

    def put(self, kind: Kind[Any], object_: Resource, *, live: bool = False) -> bool:
        """Remember the object. False where this version, or a later one, was known.

        `live`: it was read just now, which outweighs the news that it was deleted or has lost the label that we
        watch for.
        """
        key = key_of(object_)
        known = self.get(kind, key)
        version = object_.metadata.resource_version
        if known is not None and not newer(version, known.metadata.resource_version):
            return False
        deleted = self._gone.get((kind.plural, key))
        if deleted is not None and not live and not newer(version, deleted):
            return False
        self._gone.pop((kind.plural, key), None)
        kept = _kept(object_)
        self._count(known, -1)
        self._count(kept, +1)
        self._objects[kind.plural][key] = kept
        return True

    def forget(self, kind: Kind[Any], object_: Resource) -> bool:
        """The object was deleted at its resourceVersion. False where a later one is known, or none.

        The version is remembered: an answer that was on its way must not bring the object back.
        """
        key = key_of(object_)
        known = self.get(kind, key)
        version = object_.metadata.resource_version
        if known is not None and newer(known.metadata.resource_version, version):
            return False
        self._gone[kind.plural, key] = version
        return self._drop(kind, key)

    def replace(
        self, kind: Kind[Any], objects: Iterable[Resource], resource_version: str
    ) -> tuple[list[Any], list[Any]]:
        """Take over a complete list as of `resource_version`. Returns what is new or changed, and what has gone."""
        self.served[kind.plural] = kind
        listed = {key_of(each): each for each in objects}
        gone = [
            known
            for key, known in self.all(kind).items()
            if key not in listed and not newer(known.metadata.resource_version, resource_version)
        ]
        for each in gone:
            self._drop(kind, key_of(each))
        # Whatever was deleted before the list is not in it, so there is nothing to guard against any more.
        self._gone = {
            (plural, key): version
            for (plural, key), version in self._gone.items()
            if plural != kind.plural or newer(version, resource_version)
        }
        return [each for each in listed.values() if self.put(kind, each)], gone

    def obstruct(self, kind: Kind[Any], unavailability: Unavailability | None) -> bool:
        """Remember why objects of a kind of others are not known, or (None) that they are. False: known."""
        if self.unavailable.get(kind.plural) == unavailability:
            return False
        if unavailability is None:
            del self.unavailable[kind.plural]
        else:
            self.unavailable[kind.plural] = unavailability
        return True

    def snapshot_of(self, live: Mapping[Key, Secret | None]) -> Snapshot:
        """The view for one reconciliation; `live` holds Secrets that were read just now, None where there is none."""
        secrets = {**self.all(SECRETS), **{key: found for key, found in live.items() if found is not None}}
        return Snapshot(
            settings=self.settings,
            authorities=self.all(AUTHORITIES),
            policies=self.all(POLICIES),
            profiles=self.all(PROFILES),
            credentials=self.all(CREDENTIALS),
            namespaces=self.all(NAMESPACES),
            secrets=secrets,
            accounts=self._open,
            issuers={**self.all(CLUSTER_ISSUERS), **self.all(ISSUERS)},
            config_maps=self.all(CONFIG_MAPS),
            bundles=self.all(BUNDLES),
            cluster_trust_bundles=self.all(CLUSTER_TRUST_BUNDLES[0]),
            unavailable=self.unavailable,
            served=self.served,
        )

    def _drop(self, kind: Kind[Any], key: Key) -> bool:
        dropped = self._objects[kind.plural].pop(key, None)
        self._count(dropped, -1)
        return dropped is not None

    def _count(self, object_: Resource | None, step: int) -> None:
        if isinstance(object_, AccountSummary) and object_.is_open:
            self._open[object_.credential] += step


def _kept(object_: Resource) -> Resource:
    if not isinstance(object_, ACMEAccount):
        return object_
    credential = object_.metadata.labels.get(CREDENTIAL_UID, "")
    return AccountSummary(object_.metadata, credential, object_.status.state is not None)
