"""A current copy of all objects of one kind in memory, kept by list and watch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

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


class Informer(Indexer[T]):
    """The objects of the API server, as far as they have been received; never the basis of a state change.

    `namespaces` are watched one by one; without any, all are watched together. `labels` is a label selector; objects
    that the caller puts must match it. `refused` is that of Reflector.
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
        scopes: tuple[str | None, ...] = tuple(dict.fromkeys(namespaces)) or (None,)
        super().__init__(kind, scopes=scopes, indexes=indexes, on_change=on_change, keep=keep)
        self._cluster = cluster
        self._labels = labels
        self._reflectors = ReflectorGroup(
            cluster,
            kind,
            scopes,
            labels=labels,
            begin=self._refill,
            on_event=self.receive,
            timing=timing,
            refused=refused,
        )
        self.synced = self._reflectors.started
        """Set for good once every namespace has been listed."""

    def is_current(self) -> bool:
        """Whether every namespace has been listed and its watch is open."""
        return self._reflectors.are_open()

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
        self.replace(scope, Listing(tuple(items), version, unreadable=tuple(unreadable)))
        return version
