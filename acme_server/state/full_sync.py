"""Shows every object of a kind to those who keep a little of each: once the watch has begun, and after each gap in it.

What an informer would hold of a hundred thousand orders is too much; what is needed of most of them is a few words.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError
from kms.cluster.list_all import list_all
from kms.resources.kinds import Kind
from kms.resources.meta import Resource

T = TypeVar("T", bound=Resource)
T_contra = TypeVar("T_contra", bound=Resource, contravariant=True)

logger = logging.getLogger(__name__)


class Index(Protocol[T_contra]):
    """Keeps something of every object of a kind. The watch tells it of changes by `seen` too."""

    def seen(self, resource: T_contra, deleted: bool, /) -> None:  # noqa: FBT001 - the signature of the store's listeners
        """Take note of the object as it is now, or of its end. Versions may arrive in any order."""
        ...

    def missed(self) -> None:
        """Changes may have been missed: what is known is not all until the next survey has ended."""
        ...

    def surveyed(self) -> None:
        """Every object that there is has been seen since changes were missed last."""
        ...


class FullSync(Generic[T]):
    """Lists all objects of a kind, page by page, whenever the watch (re)begins."""

    def __init__(self, cluster: Cluster, kind: Kind[T], *listeners: Index[T], namespaces: Sequence[str] = ()) -> None:
        self._cluster = cluster
        self._kind = kind
        self._listeners = listeners
        self._namespaces = tuple(namespaces)
        self._missed = asyncio.Event()
        self.done = asyncio.Event()
        """Set for good once the first survey has ended."""

    def missed(self) -> None:
        """The watch begins, or begins anew after a gap."""
        for listener in self._listeners:
            listener.missed()
        self._missed.set()

    async def run(self, *, pause: float = 5.0) -> None:
        """Survey whenever it is due; never returns. `pause` in seconds after a failure."""
        while True:
            await self._missed.wait()
            self._missed.clear()
            try:
                await self._list(pause)
            except ClusterError as error:
                logger.warning("objects could not be listed", extra={"kind": self._kind.kind, "error": str(error)})
                self._missed.set()
                await asyncio.sleep(pause)
            else:
                self._ended()

    async def _list(self, pause: float) -> None:
        for namespace in self._namespaces or (None,):
            async for each in list_all(self._cluster, self._kind, namespace, pause=pause):
                for listener in self._listeners:
                    listener.seen(each, False)

    def _ended(self) -> None:
        if self._missed.is_set():
            return  # there was another gap meanwhile
        for listener in self._listeners:
            listener.surveyed()
        self.done.set()
