"""A current copy of all objects of one kind in memory, kept by list and watch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from kms.cluster.backoff import Pace
from kms.cluster.client import Cluster
from kms.cluster.codec import Listing, WatchEvent
from kms.cluster.reflector import Reflectors
from kms.cluster.resource_version import newer
from kms.resources.kinds import Kind
from kms.resources.meta import Resource, key_of

T = TypeVar("T", bound=Resource)
Key = tuple[str, str]
OnChange = Callable[[T, bool], None]
"""Told of an object that is new or has changed, and (True) of one that is gone. It must not wait."""

logger = logging.getLogger(__name__)


class Informer(Generic[T]):
    """What the API server has, as far as it has been heard of; never the ground for a state change.

    `namespaces` are watched one by one; without any, all are watched together. `labels` is a label selector. `indexes`
    name functions that say under which values an object is to be found.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind[T],
        *,
        namespaces: Sequence[str] = (),
        labels: str = "",
        indexes: Mapping[str, Callable[[T], Iterable[Hashable]]] | None = None,
        on_change: OnChange[T] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._labels = labels
        self._on_change = on_change
        self._objects: dict[Key, T] = {}
        self._index_by = dict(indexes or {})
        self._indexes: dict[str, dict[Hashable, dict[Key, T]]] = {name: {} for name in self._index_by}
        self._versions: dict[str | None, str] = {}
        self._reflectors = Reflectors(
            cluster, kind, namespaces, labels=labels, begin=self._refill, on_event=self._learn, pace=pace
        )
        self.synced = self._reflectors.begun
        """Set for good once every namespace has been listed."""

    def get(self, namespace: str, name: str) -> T | None:
        """The object as it was last heard of."""
        return self._objects.get((namespace, name))

    def values(self) -> Collection[T]:
        """All objects, in no order; a view that must not be kept across an await."""
        return self._objects.values()

    def by(self, index: str, key: Hashable) -> Sequence[T]:
        """The objects that the index finds under `key`."""
        return tuple(self._indexes[index].get(key, {}).values())

    def put(self, object_: T) -> None:
        """Take in what the API server has just answered to a read or write of ours, ahead of the watch.

        An answer that the watch has overtaken is left out; so is an object of a namespace that is not watched. That the
        object matches `labels` is the caller's business.
        """
        scope = self._scope_of(object_)
        if scope not in self._reflectors.scopes:
            return
        old = self._objects.get(key_of(object_))
        # Without an old one: what the watch would have brought by now, had it not been deleted since, is not news.
        known = old.metadata.resource_version if old is not None else self._versions.get(scope, "")
        if newer(object_.metadata.resource_version, known):
            self._store(object_)

    def last_activity(self) -> float:
        """Seconds since the API server has said anything about the namespace that it has been silent about longest."""
        return self._reflectors.last_activity()

    def interrupted(self) -> float:
        """Seconds for which changes are not being heard of, in at least one namespace; 0: they are."""
        return self._reflectors.interrupted()

    async def run(self) -> None:
        """List and watch until cancelled."""
        await self._reflectors.run()

    async def _refill(self, scope: str | None) -> str:
        listing = await self._cluster.list(self._kind, scope, labels=self._labels)
        self._replace(scope, listing)
        return listing.resource_version

    def _replace(self, scope: str | None, listing: Listing[T]) -> None:
        self._versions[scope] = listing.resource_version
        listed = {key_of(each) for each in listing.items}
        # What put() has brought since the list was made is newer than the list and stays.
        gone = [
            each
            for key, each in self._objects.items()
            if self._scope_of(each) == scope
            and key not in listed
            and not newer(each.metadata.resource_version, listing.resource_version)
        ]
        for each in gone:
            self._drop(each)
        for each in listing.items:
            self._store_if_newer(each)

    def _learn(self, scope: str | None, event: WatchEvent[T]) -> None:
        self._versions[scope] = event.resource_version or self._versions[scope]
        if event.object is None:
            return
        if event.type != "DELETED":
            self._store_if_newer(event.object)
            return
        old = self._objects.get(key_of(event.object))
        if old is not None and not newer(old.metadata.resource_version, event.resource_version):
            self._drop(old)

    def _store_if_newer(self, object_: T) -> None:
        old = self._objects.get(key_of(object_))
        if old is None or newer(object_.metadata.resource_version, old.metadata.resource_version):
            self._store(object_)

    def _store(self, object_: T) -> None:
        key = key_of(object_)
        old = self._objects.get(key)
        if old is not None:
            self._unindex(key, old)
        self._objects[key] = object_
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
        except Exception:  # a listener's mistake must not end the watch for everybody else
            logger.exception("listener failed", extra={"kind": self._kind.kind, "object": "/".join(key_of(object_))})

    def _scope_of(self, object_: T) -> str | None:
        return None if self._reflectors.scopes == (None,) else object_.metadata.namespace
