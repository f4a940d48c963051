"""A current copy of all objects of one kind in memory, kept by list and watch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from kms.cluster.client import Cluster
from kms.cluster.codec import Listing
from kms.cluster.indexer import Indexer, OnChange
from kms.cluster.reflector import ReflectorGroup
from kms.cluster.retry import Timing
from kms.resources.kinds import Kind
from kms.resources.meta import Resource, Unreadable

T = TypeVar("T", bound=Resource)

_PAGE = 100
"""Objects of a page."""


class Informer(Generic[T]):
    """The objects of the API server, as far as they have been received; never the basis of a state change.

    `namespaces` are watched one by one; without any, all are watched together. `labels` is a label selector. `indexes`
    maps names to functions that return the values by which an object is found. `keep` returns the part of an object
    that is stored. `refused` is that of Reflector.
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
        keep: Callable[[T], T] = lambda object_: object_,
        timing: Timing | None = None,
        refused: float | None = None,
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._labels = labels
        self._keep = keep
        scopes: tuple[str | None, ...] = tuple(dict.fromkeys(namespaces)) or (None,)
        self._indexer = Indexer(kind, scopes=scopes, indexes=indexes, on_change=on_change, keep=keep)
        self._reflectors = ReflectorGroup(
            cluster,
            kind,
            scopes,
            labels=labels,
            begin=self._refill,
            on_event=self._indexer.receive,
            timing=timing,
            refused=refused,
        )
        self.synced = self._reflectors.started
        """Set for good once every namespace has been listed."""

    def get(self, namespace: str, name: str) -> T | None:
        """The object as it was last received."""
        return self._indexer.get(namespace, name)

    def unreadable(self, namespace: str, name: str) -> Unreadable | None:
        """What is known of the object if it exists and does not fit its model: `get` then returns None."""
        return self._indexer.unreadable(namespace, name)

    def values(self) -> Collection[T]:
        """All objects, in no order: a view that must not be kept across an await."""
        return self._indexer.values()

    def by(self, index: str, key: Hashable) -> Sequence[T]:
        """The objects with the value `key` in that index."""
        return self._indexer.by(index, key)

    def put(self, object_: T) -> None:
        """Store what the API server has just returned to a read or write of ours, ahead of the watch.

        An object that the watch has overtaken is ignored, and so is one of a namespace that is not watched. The caller
        sees to it that the object matches `labels`.
        """
        self._indexer.put(object_)

    def idle_seconds(self) -> float:
        """Seconds since the API server last sent anything; the longest of all namespaces."""
        return self._reflectors.idle_seconds()

    def outage_seconds(self) -> float:
        """Seconds since the first lost watch was lost; 0 if the watches of all namespaces are open."""
        return self._reflectors.outage_seconds()

    async def run(self) -> None:
        """List and watch until cancelled."""
        await self._reflectors.run()

    async def _refill(self, scope: str | None) -> str:
        # Small pages, each reduced to what is kept, so that a list is never in memory as a whole.
        items: list[T] = []
        unreadable: list[Unreadable] = []
        version = ""
        async for page in self._cluster.list_pages(self._kind, scope, labels=self._labels, limit=_PAGE):
            items.extend(map(self._keep, page.items))
            unreadable.extend(page.unreadable)
            version = page.resource_version
        self._indexer.replace(scope, Listing(tuple(items), version, unreadable=tuple(unreadable)))
        return version
