"""A bounded cache that never replaces a resource by an older version, and live reads that concurrent callers share."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from kms.cluster.resource_version import newer
from kms.resources.meta import Key as Key
from kms.resources.meta import Resource, key_of

T = TypeVar("T", bound=Resource)
R = TypeVar("R")


class Cache(Generic[T]):
    """The newest version of each of the objects that were used last: `capacity` of them, with `octets` together.

    Writes, live reads and watch events arrive in any order: an older version never replaces a newer one, and an object
    whose deletion was seen does not come back with an earlier read. `timer` counts seconds.
    """

    def __init__(
        self,
        capacity: int,
        *,
        octets: int = sys.maxsize,
        weigh: Callable[[T], int] = lambda _resource: 0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity = capacity
        self._maximum_octets = octets
        self._weigh = weigh
        self._octets = 0
        self._timer = timer
        self._weights: dict[Key, int] = {}
        self._confirmed: dict[Key, float] = {}
        self._objects: OrderedDict[Key, T] = OrderedDict()
        self._deletions: OrderedDict[Key, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: Key) -> bool:
        return key in self._objects

    def get(self, key: Key) -> T | None:
        """The object, which becomes the one used last."""
        found = self._objects.get(key)
        if found is not None:
            self._objects.move_to_end(key)
        return found

    def is_outdated(self, key: Key, version: str) -> bool:
        """Whether it holds the object, in an older version than this one."""
        found = self._objects.get(key)
        return found is not None and newer(version, found.metadata.resource_version)

    def age(self, key: Key) -> float:
        """Seconds since a read, a write or the watch brought the version of the object that is cached."""
        return self._timer() - self._confirmed.get(key, float("-inf"))

    def put(self, resource: T) -> T:
        """Keep the object unless a newer version is known. Returns the newest version."""
        key, version = key_of(resource), resource.metadata.resource_version
        deletion = self._deletions.get(key)
        if deletion is not None and not newer(version, deletion):
            return resource
        known = self._objects.get(key)
        if known is not None and not newer(version, known.metadata.resource_version):
            if version == known.metadata.resource_version:
                self._confirmed[key] = self._timer()
            return known
        self.drop(key)
        self._objects[key] = resource
        self._confirmed[key] = self._timer()
        self._weights[key] = octets = self._weigh(resource)
        self._octets += octets
        while len(self._objects) > self._capacity or self._octets > self._maximum_octets:
            self.drop(next(iter(self._objects)))
        return resource

    def remove(self, key: Key, version: str) -> None:
        """Take note that the object was deleted at that version."""
        known = self._objects.get(key)
        if known is not None and not newer(known.metadata.resource_version, version):
            self.drop(key)
        self._deletions[key] = version
        self._deletions.move_to_end(key)
        while len(self._deletions) > self._capacity:
            self._deletions.popitem(last=False)

    def drop(self, key: Key) -> None:
        """Forget the object: it may have changed or been deleted since."""
        self._objects.pop(key, None)
        self._confirmed.pop(key, None)
        self._octets -= self._weights.pop(key, 0)

    def clear(self) -> None:
        """Forget all objects."""
        self._objects.clear()
        self._weights.clear()
        self._confirmed.clear()
        self._octets = 0

    def forget(self) -> None:
        """Forget all objects, and which ones were deleted."""
        self.clear()
        self._deletions.clear()


class SharedReads(Generic[R]):
    """Concurrent callers share one read of an object, but never a read that was sent before they asked.

    So a caller sees everything written before its call, and at any time at most one read of an object is under way and
    one more waits.
    """

    def __init__(self, read: Callable[[str, str], Awaitable[R]]) -> None:
        self._read = read
        self._running: dict[Key, asyncio.Task[R]] = {}
        self._waiting: dict[Key, asyncio.Task[R]] = {}

    def __len__(self) -> int:
        """The reads under way and waiting."""
        return len(self._running) + len(self._waiting)

    async def __call__(self, namespace: str, name: str) -> R:
        """The result of a read that starts now or later."""
        key = namespace, name
        task = self._waiting.get(key)
        if task is None:
            task = asyncio.create_task(self._after(self._running.get(key), key))
            self._waiting[key] = task
            task.add_done_callback(_consume_error)
        # Shielded: a caller that gives up must not cancel the read of the others.
        return await asyncio.shield(task)

    async def _after(self, previous: asyncio.Task[R] | None, key: Key) -> R:
        if previous is not None:
            await asyncio.wait((previous,))
        task = self._running[key] = self._waiting.pop(key)
        try:
            return await self._read(*key)
        finally:
            if self._running.get(key) is task:
                del self._running[key]


def _consume_error(task: asyncio.Task[R]) -> None:
    """Retrieve the error, so that asyncio does not log it if every caller has given up."""
    if not task.cancelled():
        task.exception()
