"""The objects of one kind, as far as they have been read and may be read, kept by list and watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Generic, TypeVar

from kms.cluster.client import Cluster
from kms.cluster.codec import WatchEvent
from kms.cluster.errors import ClusterError, Forbidden, Unserved
from kms.cluster.list_all import list_all
from kms.cluster.reflector import Reflector
from kms.cluster.retry import Timing
from kms.resources.kinds import Kind
from kms.resources.meta import Key, Resource, Unreadable, key_of

T = TypeVar("T", bound=Resource)
E = TypeVar("E")

_KEPT_PROBLEMS = 50
"""Unreadable objects that are named."""


class Collection(Generic[T, E]):
    """What `keep` returns for each object of the kind, in one namespace or (None) in all.

    At most `most` objects are kept. `on_change` is called after each change. Where the API server forbids the list,
    it is asked again after `refused` seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind[T],
        namespace: str | None,
        *,
        keep: Callable[[T], E],
        on_change: Callable[[], None],
        fields: str = "",
        most: int = 200_000,
        refused: float = 30.0,
        timing: Timing | None = None,
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.entries: dict[Key, E] = {}
        self.unreadable: dict[Key, str] = {}
        self.read = 0
        """Objects that the list has had so far."""
        self.is_complete = False
        """Whether the list has been read to its end at least once."""
        self.is_forbidden = False
        self.problem: str | None = None
        """Why the objects are not read; None: they are, or are being read."""
        self.left_out = 0
        """Objects beyond the maximum."""
        self.settled = asyncio.Event()
        """Set for good once the list has ended or failed."""
        self._cluster = cluster
        self._keep = keep
        self._on_change = on_change
        self._fields = fields
        self._most = most
        self._reflector = Reflector(
            cluster,
            kind,
            namespace,
            fields=fields,
            begin=self._read_all,
            on_event=self._receive,
            timing=timing or Timing(),
            refused=refused,
        )

    def outage_seconds(self) -> float:
        """Seconds since changes have stopped to arrive; 0: they arrive."""
        return self._reflector.outage_seconds() if self.is_complete else 0.0

    async def run(self) -> None:
        """List and watch until cancelled."""
        await self._reflector.run()

    async def _read_all(self) -> str:
        try:
            version = await self._list()
        except ClusterError as error:
            self.problem, self.is_forbidden = str(error), isinstance(error, Forbidden)
            if isinstance(error, (Forbidden, Unserved)):
                self.entries.clear()
                self.is_complete = False
            self.settled.set()
            self._on_change()
            raise
        self.problem, self.is_forbidden, self.is_complete = None, False, True
        self.settled.set()
        self._on_change()
        return version

    async def _list(self) -> str:
        # The watch begins where the list did, so that it repeats what happened meanwhile and misses nothing.
        version = await self._cluster.version(self.kind, self.namespace)
        seen: set[Key] = set()
        self.read = self.left_out = 0
        self.unreadable.clear()
        objects = list_all(
            self._cluster, self.kind, self.namespace, fields=self._fields, on_unreadable=self._note_unreadable
        )
        async with aclosing(objects):
            async for each in objects:
                self.read += 1
                seen.add(self._put(each))
                if self.read % 500 == 0:
                    self._on_change()
        for key in self.entries.keys() - seen:
            del self.entries[key]
        return version

    def _receive(self, event: WatchEvent[T]) -> None:
        if event.unreadable is not None:
            metadata = event.unreadable.metadata
            self.entries.pop((metadata.namespace, metadata.name), None)
            if event.type != "DELETED":
                self._note_unreadable(event.unreadable)
        elif event.object is not None and event.type == "DELETED":
            key = key_of(event.object)
            self.entries.pop(key, None)
            self.unreadable.pop(key, None)
        elif event.object is not None:
            self.unreadable.pop(self._put(event.object), None)
        else:
            return  # a bookmark
        self._on_change()

    def _put(self, object_: T) -> Key:
        key = key_of(object_)
        if key in self.entries or len(self.entries) < self._most:
            self.entries[key] = self._keep(object_)
        else:
            self.left_out += 1
        return key

    def _note_unreadable(self, unreadable: Unreadable) -> None:
        if len(self.unreadable) < _KEPT_PROBLEMS:
            self.unreadable[unreadable.metadata.namespace, unreadable.metadata.name] = str(unreadable)
