"""What this replica knows about every object of one kind.

Own writes, live reads, watch events and full lists bring versions of objects out of order and more than once. The index
puts them in order by resourceVersion, in one place; its views keep a few words of each object and see every version at
most once and never an older one after a newer one.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Generic, TypeVar

from kms.cluster.resource_version import newer
from kms.resources.meta import Key, ObjectMeta, Resource, key_of

T = TypeVar("T", bound=Resource)


class Index(Generic[T]):
    """The newest known version of every object.

    After a gap in the watch the index is stale: it keeps its objects, and `mark_complete` removes those that were not
    seen again. `remembered` is the number of latest deletions that an older version, arriving late, cannot undo.
    """

    def __init__(self, *, remembered: int = 10_000) -> None:
        self._remembered = remembered
        self._views: list[View[T]] = []
        self._versions: dict[Key, str] = {}
        self._deleted: OrderedDict[Key, str] = OrderedDict()
        self._unconfirmed: set[Key] = set()
        self.complete = False
        """Whether the index has every object. If not, a missing object may exist."""
        self.loaded = False
        """Whether the index has ever had every object. If not, it knows neither what counts nor what is forbidden."""

    def __len__(self) -> int:
        return len(self._versions)

    def __contains__(self, key: Key) -> bool:
        return key in self._versions

    def add_view(self, view: View[T]) -> None:
        """Inform the view of every change from now on."""
        self._views.append(view)

    def update(self, resource: T, deleted: bool, *, listed: bool = False) -> None:  # noqa: FBT001 - of callbacks
        """Take in a version of an object, or its deletion.

        `listed`: it comes from a full list that was requested after the index became stale. It then outweighs what was
        known before, also a newer version: etcd was restored from a snapshot, and that version never was.
        """
        if deleted:
            self.delete(resource.metadata)
            return
        key = key_of(resource)
        if self._take(key, resource.metadata.resource_version, listed=listed):
            for view in self._views:
                view.put(key, resource)

    def delete(self, metadata: ObjectMeta) -> None:
        """Take in the deletion of an object; its last version need not be readable."""
        key, version = _key(metadata), metadata.resource_version
        self._unconfirmed.discard(key)
        known = self._versions.get(key) or self._deleted.get(key)
        if known is not None and newer(known, version):
            return
        self._remove(key)
        self._deleted[key] = version
        self._deleted.move_to_end(key)
        if len(self._deleted) > self._remembered:
            self._deleted.popitem(last=False)

    def obscure(self, metadata: ObjectMeta, *, listed: bool = False) -> None:
        """Take in a version of an object that cannot be read: the views keep of it only what refuses.

        For `listed`, see `update`.
        """
        key = _key(metadata)
        if self._take(key, metadata.resource_version, listed=listed):
            for view in self._views:
                view.obscure(key)

    def has(self, metadata: ObjectMeta) -> bool:
        """Whether the views have seen that version of the object, or a newer one."""
        known = self._versions.get((metadata.namespace, metadata.name))
        return known is not None and not newer(metadata.resource_version, known)

    def is_current(self, key: Key, version: str) -> bool:
        """Whether that version, or a newer one, of an object has been seen since the index became stale."""
        known = self._versions.get(key)
        return known is not None and not newer(version, known) and key not in self._unconfirmed

    def mark_stale(self) -> None:
        """Changes may have been missed: do not rely on any object until it is seen again."""
        self.complete = False
        self._unconfirmed = {*self._versions, *self._deleted}

    def forget_versions(self) -> None:
        """Take every version that comes for newer than the known one, whose number means nothing any more."""
        self._versions = dict.fromkeys(self._versions, "0")
        self._deleted.clear()

    def mark_complete(self) -> None:
        """All objects have been listed since the index became stale: remove those that were not among them."""
        for key in self._unconfirmed:
            self._remove(key)
        self._unconfirmed = set()
        self.complete = self.loaded = True

    def is_confirmed(self, key: Key) -> bool:
        """Whether the object has been seen since the index became stale."""
        return key not in self._unconfirmed

    def _take(self, key: Key, version: str, *, listed: bool) -> bool:
        """Remember the version, and return whether it is newer than what is known of the object, or outweighs it."""
        outweighs = listed and key in self._unconfirmed
        self._unconfirmed.discard(key)
        known = self._versions.get(key) or self._deleted.get(key)
        if known is not None and not newer(version, known) and (version == known or not outweighs):
            return False
        self._deleted.pop(key, None)
        self._versions[key] = version
        return True

    def _remove(self, key: Key) -> None:
        if self._versions.pop(key, None) is None:
            return
        for view in self._views:
            view.remove(key)


class View(ABC, Generic[T]):
    """Keeps an extract of every object of an index."""

    def __init__(self, index: Index[T]) -> None:
        self._index = index
        index.add_view(self)

    @abstractmethod
    def put(self, key: Key, resource: T, /) -> None:
        """Keep the extract of the object, in place of that of its earlier version."""

    @abstractmethod
    def remove(self, key: Key, /) -> None:
        """Drop the extract of the object, which no longer exists."""

    @abstractmethod
    def obscure(self, key: Key, /) -> None:
        """Drop what the extract permits and keep what it forbids: the object exists but cannot be read.

        `put` may not have been called for the object. `put` or `remove` follows once it can be read or is gone.
        """


def _key(metadata: ObjectMeta) -> Key:
    return sys.intern(metadata.namespace), metadata.name
