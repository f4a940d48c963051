"""The operator's cache of the cluster. Lists, watches and the operator's own writes fill it.

The cache may lag behind. It never authorizes a write: every write is a compare-and-swap, and an object that is not
cached is read from the API server before a reconciler treats it as absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kms.cluster.resource_version import newer, went_back
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import Kind
from kms.resources.meta import Key, Resource, Unreadable, key_of
from kms.resources.retained import retained
from kms_operator.indexes import AccountSummary, ObjectIndex, Unavailability


class Cache(ObjectIndex):
    """The index with its changes: a newer version replaces an older one, never the other way round.

    Of Secrets outside of the namespace `release`, and of what tenants write, only what is needed is kept.
    """

    def __init__(self, *, release: str = "") -> None:
        super().__init__()
        self._release = release
        self._deleted: dict[tuple[str, Key], str] = {}
        self._newest: dict[str, str] = {}

    def put(self, kind: Kind[Any], object_: Resource, *, live: bool = False) -> bool:
        """Store the object. Returns False if this version or a later one is cached.

        `live`: the object was read from the API server just now. It then outweighs an event that said that the object
        was deleted or lost the label that is watched.
        """
        key = key_of(object_)
        known = self.get(kind, key) or self.unreadable(kind, key)
        version = object_.metadata.resource_version
        self.note_version(kind, version)
        if known is not None and not newer(version, known.metadata.resource_version):
            return False
        deleted = self._deleted.get((kind.plural, key))
        if deleted is not None and not live and not newer(version, deleted):
            return False
        self._deleted.pop((kind.plural, key), None)
        self._unreadable[kind.plural].pop(key, None)
        self._kinds[kind.plural].put(key, _summarize(retained(object_, release=self._release)))
        return True

    def put_unreadable(self, kind: Kind[Any], object_: Unreadable) -> bool:
        """Drop the object, of which a newer version cannot be read. Returns False if a later version is cached."""
        key = key_of(object_)
        known = self.get(kind, key) or self.unreadable(kind, key)
        version = object_.metadata.resource_version
        self.note_version(kind, version)
        if known is not None and not newer(version, known.metadata.resource_version):
            return False
        self._kinds[kind.plural].pop(key)
        self._unreadable[kind.plural][key] = object_
        return True

    def remove(self, kind: Kind[Any], object_: Resource | Unreadable) -> bool:
        """Drop an object that was deleted at its resourceVersion. Returns False if nothing or a later one is cached.

        The version is remembered, so that an answer that was under way does not bring the object back.
        """
        key = key_of(object_)
        known = self.get(kind, key) or self.unreadable(kind, key)
        version = object_.metadata.resource_version
        self.note_version(kind, version)
        if known is not None and newer(known.metadata.resource_version, version):
            return False
        self._deleted[kind.plural, key] = version
        self._kinds[kind.plural].pop(key)
        self._unreadable[kind.plural].pop(key, None)
        return known is not None

    def newest(self, kind: Kind[Any]) -> str:
        """Return the newest resourceVersion of the kind that was received; empty if there is none."""
        return self._newest.get(kind.plural, "")

    def replace(
        self,
        kind: Kind[Any],
        objects: Iterable[Resource],
        resource_version: str,
        *,
        unreadable: Iterable[Unreadable] = (),
        since: str = "",
    ) -> tuple[list[Any], list[Any]]:
        """Replace all objects of the kind by a complete list. Returns what is new or changed, and what is gone.

        `unreadable` are the objects of the list that cannot be read; they are not stored. `since` was the newest
        version when the list was requested. What was known then counts no more, even if its version is newer: after a
        restore of etcd from a snapshot, resourceVersions go back, or objects have versions that never were.
        """
        self.served[kind.plural] = kind
        restored = went_back(since, resource_version)
        horizon = since if restored else resource_version
        readable = tuple(objects)
        listed = {key_of(each): each.metadata for each in (*readable, *unreadable)}
        deleted = []
        for key, known in (*self.all(kind).items(), *self._unreadable[kind.plural].items()):
            present, version = listed.get(key), known.metadata.resource_version
            same = present is not None and present.resource_version == version and not restored
            if same or newer(version, horizon):
                continue
            if present is None or present.uid != known.metadata.uid:
                deleted.append(known)  # if another one is present, it was made since
            self._kinds[kind.plural].pop(key)
            self._unreadable[kind.plural].pop(key, None)
        # The list does not contain what was deleted before it, so those deletions need not be remembered.
        self._deleted = {
            (plural, key): version
            for (plural, key), version in self._deleted.items()
            if plural != kind.plural or newer(version, horizon)
        }
        if restored:
            self._newest[kind.plural] = resource_version
        self.note_version(kind, resource_version)
        return [each for each in readable if self.put(kind, each)], deleted

    def note_version(self, kind: Kind[Any], version: str) -> None:
        """Note a version of the kind that was received."""
        known = self._newest.get(kind.plural, "")
        if not known or newer(version, known):
            self._newest[kind.plural] = version

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
    return AccountSummary(object_.metadata, object_.credential, object_.status.state is not None)
