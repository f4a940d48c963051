"""Objects of one kind in memory, with indexes: what an informer keeps, and how lists, events and answers change it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from kms.cluster.codec import Listing, WatchEvent
from kms.cluster.resource_version import newer, went_back
from kms.resources.kinds import Kind
from kms.resources.meta import Key, Resource, Unreadable, key_of

T = TypeVar("T", bound=Resource)
OnChange = Callable[[T, bool], None]
"""Called with an object that is new or has changed (False), or that was deleted (True). It must not wait."""

logger = logging.getLogger(__name__)


class Indexer(Generic[T]):
    """The newest version of each object that was received, regardless of the order of arrival.

    An object whose newest version does not fit its model is not there, and neither is an older version of it.
    `scopes` are the namespaces that are watched; (None,) is all of them together. `indexes` maps names to functions
    that return the values by which an object is found. `keep` returns the part of an object that is stored.
    """

    def __init__(
        self,
        kind: Kind[T],
        *,
        scopes: tuple[str | None, ...] = (None,),
        indexes: Mapping[str, Callable[[T], Iterable[Hashable]]] | None = None,
        on_change: OnChange[T] | None = None,
        keep: Callable[[T], T] = lambda object_: object_,
    ) -> None:
        self._kind = kind
        self._scopes = scopes
        self._on_change = on_change
        self._keep = keep
        self._objects: dict[Key, T] = {}
        self._unreadable: dict[Key, Unreadable] = {}
        self._index_by = dict(indexes or {})
        self._indexes: dict[str, dict[Hashable, dict[Key, T]]] = {name: {} for name in self._index_by}
        self._versions: dict[str | None, str] = {}

    def get(self, namespace: str, name: str) -> T | None:
        """The object as it was last received."""
        return self._objects.get((namespace, name))

    def unreadable(self, namespace: str, name: str) -> Unreadable | None:
        """What is known of the object if it exists and does not fit its model."""
        return self._unreadable.get((namespace, name))

    def values(self) -> Collection[T]:
        """All objects, in no order: a view that must not be kept across an await."""
        return self._objects.values()

    def by(self, index: str, key: Hashable) -> Sequence[T]:
        """The objects with the value `key` in that index."""
        return tuple(self._indexes[index].get(key, {}).values())

    def index_values(self, index: str) -> Collection[Hashable]:
        """The values by which that index finds at least one object."""
        return self._indexes[index].keys()

    def put(self, object_: T) -> None:
        """Store what the API server has just returned to a read or write of ours, ahead of the watch.

        An object that the watch has overtaken is ignored, and so is one of a namespace that is not watched.
        """
        scope = self._scope_of(object_)
        if scope not in self._scopes:
            return
        old = self._objects.get(key_of(object_)) or self._unreadable.get(key_of(object_))
        # Without an old one: an object older than the watch was deleted, or the watch would have brought it.
        known = old.metadata.resource_version if old is not None else self._versions.get(scope, "")
        if newer(object_.metadata.resource_version, known):
            self._store(object_)

    def replace(self, scope: str | None, listing: Listing[T]) -> None:
        """Store a list of the scope, and drop the objects that it does not contain."""
        restored = went_back(self._versions.get(scope, ""), listing.resource_version)
        self._versions[scope] = listing.resource_version
        listed = {key_of(each): each.metadata.resource_version for each in listing.items}

        def counts(known: T) -> bool:
            """Whether the object stays, at least until the list brings a newer version.

            Objects that put() has stored since the list was made are newer than the list. Any other has no newer
            version than in the list, unless etcd was restored: then it has one that never was. Where the versions of
            lists went back, those of objects say nothing.
            """
            version = known.metadata.resource_version
            if restored:
                return False
            if newer(version, listing.resource_version):
                return True
            return key_of(known) in listed and not newer(version, listed[key_of(known)])

        gone = [each for each in self._objects.values() if self._scope_of(each) == scope and not counts(each)]
        for each in gone:
            self._drop(each)
        self._unreadable = {key: each for key, each in self._unreadable.items() if self._scope_of(each) != scope}
        for each in listing.items:
            self._store_if_newer(each)
        for unreadable in listing.unreadable:
            self._lose(unreadable)

    def receive(self, scope: str | None, event: WatchEvent[T]) -> None:
        """Store or drop the object of an event."""
        self._versions[scope] = event.resource_version or self._versions[scope]
        if event.type == "DELETED":
            self._forget(event)
        elif event.object is not None:
            self._store_if_newer(event.object)
        elif event.unreadable is not None:
            self._lose(event.unreadable)

    def _forget(self, event: WatchEvent[T]) -> None:
        """Drop a deleted object, by its identity: its last version may be unreadable, or the one that is known."""
        deleted = event.object or event.unreadable
        if deleted is None:
            return
        key = key_of(deleted)
        unreadable = self._unreadable.get(key)
        if unreadable is not None and not newer(unreadable.metadata.resource_version, event.resource_version):
            del self._unreadable[key]
        old = self._objects.get(key)
        if old is not None and not newer(old.metadata.resource_version, event.resource_version):
            self._drop(old)

    def _lose(self, unreadable: Unreadable) -> None:
        """Drop the older version of an object that can no longer be read."""
        key, version = key_of(unreadable), unreadable.metadata.resource_version
        old = self._objects.get(key)
        if old is not None and not newer(version, old.metadata.resource_version):
            return
        self._unreadable[key] = unreadable
        if old is not None:
            self._drop(old)

    def _store_if_newer(self, object_: T) -> None:
        old = self._objects.get(key_of(object_))
        if old is None or newer(object_.metadata.resource_version, old.metadata.resource_version):
            self._store(object_)

    def _store(self, object_: T) -> None:
        object_ = self._keep(object_)
        key = key_of(object_)
        old = self._objects.get(key)
        if old is not None:
            self._unindex(key, old)
        self._objects[key] = object_
        self._unreadable.pop(key, None)
        for name, values_of in self._index_by.items():
            for value in values_of(object_):
                self._indexes[name].setdefault(value, {})[key] = object_
        self._notify(object_, deleted=False)

    def _drop(self, object_: T) -> None:
        key = key_of(object_)
        self._unindex(key, self._objects.pop(key))
        self._notify(object_, deleted=True)

    def _unindex(self, key: Key, object_: T) -> None:
        for name, values_of in self._index_by.items():
            index = self._indexes[name]
            for value in values_of(object_):
                found = index.get(value, {})
                found.pop(key, None)
                if not found:
                    index.pop(value, None)

    def _notify(self, object_: T, *, deleted: bool) -> None:
        if self._on_change is None:
            return
        try:
            self._on_change(object_, deleted)
        except Exception:  # an error of the handler must not end the watch
            logger.exception(
                "change handler failed", extra={"kind": self._kind.kind, "object": "/".join(key_of(object_))}
            )

    def _scope_of(self, object_: Resource) -> str | None:
        return None if self._scopes == (None,) else object_.metadata.namespace
