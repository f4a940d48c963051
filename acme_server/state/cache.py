"""A bounded cache of resources that never goes back in time, and reads that are shared by those who wait for them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from kms.cluster.resource_version import newer
from kms.resources.meta import Resource, key_of

T = TypeVar("T", bound=Resource)
R = TypeVar("R")

Key = tuple[str, str]
"""(namespace, name)."""


class Cache(Generic[T]):
    """At most `capacity` objects, those used last. Of each, the newest version that was put in.

    Writes, live reads and watch events arrive in any order. So an older version never replaces a newer one, and an
    object that was seen to go does not come back with a read that was answered before.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._objects: OrderedDict[Key, T] = OrderedDict()
        self._gone: OrderedDict[Key, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: Key) -> bool:
        return key in self._objects

    def get(self, key: Key) -> T | None:
        """The object, which thereby is the one used last."""
        found = self._objects.get(key)
        if found is not None:
            self._objects.move_to_end(key)
        return found

    def put(self, resource: T) -> T:
        """Keep the object unless a newer version is known; the newest version is the answer."""
        key, version = key_of(resource), resource.metadata.resource_version
        gone = self._gone.get(key)
        if gone is not None and not newer(version, gone):
            return resource
        known = self._objects.get(key)
        if known is not None and not newer(version, known.metadata.resource_version):
            return known
        self._objects[key] = resource
        self._objects.move_to_end(key)
        _shrink(self._objects, self._capacity)
        return resource

    def remove(self, key: Key, version: str) -> None:
        """The object is gone since that version."""
        known = self._objects.get(key)
        if known is not None and not newer(known.metadata.resource_version, version):
            del self._objects[key]
        self._gone[key] = version
        self._gone.move_to_end(key)
        _shrink(self._gone, self._capacity)

    def drop(self, key: Key) -> None:
        """Forget what is known of the object: it may have changed or gone without our being told."""
        self._objects.pop(key, None)

    def clear(self) -> None:
        """Forget all objects."""
        self._objects.clear()


def _shrink(entries: OrderedDict[Key, R], capacity: int) -> None:
    while len(entries) > capacity:
        entries.popitem(last=False)


class SharedReads(Generic[R]):
    """Callers that want the same object at once share one read, but never one that was sent before they asked.

    So whoever reads sees everything that was written before, and however many wait for one object, there is one read
    on its way and one to follow.
    """

    def __init__(self, read: Callable[[str, str], Awaitable[R]]) -> None:
        self._read = read
        self._sent: dict[Key, asyncio.Task[R]] = {}
        self._to_send: dict[Key, asyncio.Task[R]] = {}

    async def __call__(self, namespace: str, name: str) -> R:
        """What a read that begins now or later finds."""
        key = namespace, name
        task = self._to_send.get(key)
        if task is None:
            task = asyncio.create_task(self._after(self._sent.get(key), key))
            self._to_send[key] = task
            task.add_done_callback(_retrieved)
        # Shielded: one caller that gives up must not take the answer from the others.
        return await asyncio.shield(task)

    async def _after(self, previous: asyncio.Task[R] | None, key: Key) -> R:
        if previous is not None:
            await asyncio.wait((previous,))
        task = self._sent[key] = self._to_send.pop(key)
        try:
            return await self._read(*key)
        finally:
            if self._sent.get(key) is task:
                del self._sent[key]


def _retrieved(task: asyncio.Task[R]) -> None:
    """Take note of the error, so that asyncio does not complain where every caller has given up."""
    if not task.cancelled():
        task.exception()
