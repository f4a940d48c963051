"""Reads every object of a kind once the watch has begun, and again after each gap in it, to complete the index.

A second watch sends them all in one stream, and ends there; where there is none, they are listed page by page.

A copy of a hundred thousand orders, as an informer holds it, takes too much memory; the views of the index keep a few
words of each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import Generic, TypeVar

from acme_server.state.index import Index
from kms.cluster.client import Cluster
from kms.cluster.codec import WatchEvent
from kms.cluster.errors import ClusterError
from kms.cluster.list_all import list_all
from kms.cluster.watch_list import NotStreamed, watch_list
from kms.resources.kinds import Kind
from kms.resources.meta import Resource

T = TypeVar("T", bound=Resource)

logger = logging.getLogger(__name__)


class FullSync(Generic[T]):
    """Updates the index with all objects, page by page, whenever the watch (re)begins."""

    def __init__(self, cluster: Cluster, kind: Kind[T], index: Index[T], *, namespaces: Sequence[str] = ()) -> None:
        self._cluster = cluster
        self._kind = kind
        self._index = index
        self._namespaces = tuple(namespaces)
        self._requested = asyncio.Event()
        self.done = asyncio.Event()
        """Set for good once the first list has been read to its end."""

    def request(self) -> None:
        """List everything: the watch starts, or starts over after a gap."""
        self._index.mark_stale()
        self._requested.set()

    async def run(self, *, pause: float = 5.0) -> None:
        """List whenever requested; never returns. `pause` is the seconds to wait after a failure."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            try:
                await self._list(pause)
            except ClusterError as error:
                logger.warning("objects cannot be listed", extra={"kind": self._kind.kind, "error": str(error)})
                self._requested.set()
                await asyncio.sleep(pause)
            else:
                self._complete()

    async def _list(self, pause: float) -> None:
        for namespace in self._namespaces or (None,):
            try:
                await self._stream(namespace)
            except NotStreamed as error:
                extra = {"kind": self._kind.kind, "namespace": namespace, "reason": str(error)}
                logger.info("objects are not streamed; listing them page by page", extra=extra)
                await self._list_pages(namespace, pause)

    async def _stream(self, namespace: str | None) -> None:
        async with aclosing(watch_list(self._cluster, self._kind, namespace)) as events:
            async for event in events:
                self._take(event)

    def _take(self, event: WatchEvent[T]) -> None:
        deleted = event.type == "DELETED"
        if event.object is not None:
            self._index.update(event.object, deleted, listed=True)
        elif event.unreadable is not None and deleted:
            self._index.delete(event.unreadable.metadata)
        elif event.unreadable is not None:
            self._index.obscure(event.unreadable.metadata, listed=True)

    async def _list_pages(self, namespace: str | None, pause: float) -> None:
        objects = list_all(
            self._cluster,
            self._kind,
            namespace,
            on_unreadable=lambda unreadable: self._index.obscure(unreadable.metadata, listed=True),
            pause=pause,
        )
        async for each in objects:
            self._index.update(each, False, listed=True)

    def _complete(self) -> None:
        if self._requested.is_set():
            return  # there was another gap meanwhile
        self._index.mark_complete()
        self.done.set()
