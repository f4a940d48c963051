"""The repository: accounts and orders as custom resources. The only place that writes them.

Answers come from a bounded cache that this replica's own writes go through and that a watch keeps current; before an
answer of "no" callers read live (`fresh`). A transition is applied to what is there now, not to what its caller saw.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from acme_server.problems import ProblemType, Refused, Unavailable, not_found
from acme_server.state.cache import Cache, Key, SharedReads
from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.cluster.retry import attempts
from kms.resources.kinds import Kind
from kms.resources.meta import Resource, key_of

T = TypeVar("T", bound=Resource)

logger = logging.getLogger(__name__)


class Vanished(Refused):
    """The object that was to be changed is gone: for clients the same as one that never was (404)."""

    def __init__(self) -> None:
        gone = not_found()
        super().__init__(gone.type, gone.detail, status=gone.status)


def identity(resource: T) -> T:
    """The resource."""
    return resource


@contextmanager
def answering_unavailable() -> Iterator[None]:
    """Turn what the API server cannot do now into Unavailable. Expected refusals pass as they are."""
    try:
        yield
    except (errors.NotFound, errors.Conflict, errors.AlreadyExists):
        raise
    except errors.Unavailable as error:
        raise Unavailable("The Kubernetes API does not answer.", max(1, round(error.retry_after or 2))) from error
    except errors.Forbidden as error:
        # Quota, admission or RBAC: a person has to act, and the client may come again until then.
        logger.warning("the Kubernetes API forbids it", extra={"error": str(error)})
        raise Unavailable("The Kubernetes API does not allow this at the moment.", 30) from error


class Store(Generic[T]):
    """Resources of one kind.

    `normalise` is applied to whatever comes from the API server. `listeners` are told of every version of every object
    that passes by, written here or seen in the watch, and whether it is the last one (deleted). `is_sole_writer` says
    whether no other replica can have written in the last minute: only then does the cache hold the latest version.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind[T],
        *,
        capacity: int,
        normalise: Callable[[T], T] = identity,
        listeners: tuple[Callable[[T, bool], None], ...] = (),
        is_sole_writer: Callable[[], bool] = lambda: True,
        retry: Callable[[], AsyncIterator[int]] = attempts,
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._cache: Cache[T] = Cache(capacity)
        self._normalise = normalise
        self._listeners = listeners
        self.is_sole_writer = is_sole_writer
        self._retry = retry
        self._reads: SharedReads[T | None] = SharedReads(self._read)
        # One writer an object in this process: its transitions queue up here instead of meeting as conflicts.
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._cache)

    def cached(self, namespace: str, name: str) -> T | None:
        """The object as this replica knows it; None says nothing about whether it exists."""
        return self._cache.get((namespace, name))

    async def get(self, namespace: str, name: str) -> T | None:
        """The object as this replica knows it, else as it is now; None: there is none. Raises Unavailable."""
        return self._cache.get((namespace, name)) or await self._reads(namespace, name)

    async def fresh(self, namespace: str, name: str) -> T | None:
        """The object as it is now: what a "no" is based on. Raises Unavailable."""
        return await self._reads(namespace, name)

    async def current(self, namespace: str, name: str) -> T | None:
        """The latest version of the object: from the cache, or live where another replica may have written.

        None: there is none. Raises Unavailable.
        """
        return await (self.get if self.is_sole_writer() else self.fresh)(namespace, name)

    async def list(self, namespace: str, *, labels: str = "", fields: str = "") -> tuple[T, ...]:
        """All objects with these labels and fields (selectors) as they are now. Raises Unavailable."""
        with answering_unavailable():
            try:
                listing = await self._cluster.list(self._kind, namespace, labels=labels, fields=fields)
            except errors.Gone as error:
                raise Unavailable("The Kubernetes API took too long to list.") from error
        return tuple(self._seen(each) for each in listing.items)

    async def page(self, namespace: str, *, labels: str, limit: int, token: str = "") -> tuple[tuple[T, ...], str]:
        """At most `limit` objects with these labels, and the token of the page after this one; "": there is none.

        Raises Refused (404) where the token is too old or is none, and Unavailable.
        """
        with answering_unavailable():
            try:
                page = await self._cluster.page(self._kind, namespace, labels=labels, limit=limit, token=token)
            except (errors.Gone, errors.Invalid) as error:
                raise Refused(
                    ProblemType.MALFORMED,
                    "This page of the list is not there any more; read the list from its beginning.",
                    status=404,
                ) from error
        return tuple(self._seen(each) for each in page.items), page.continue_token

    async def add(self, resource: T) -> T:
        """Create the object. Raises AlreadyExists and Unavailable."""
        with answering_unavailable():
            try:
                created = await self._cluster.create(self._kind, resource)
            except errors.NotFound as error:
                raise Unavailable("The namespace of the profile is gone.", 30) from error
        return self._seen(created)

    async def remove(self, resource: T) -> None:
        """Delete the object in exactly this version, if it is still there. Raises Conflict and Unavailable."""
        meta = resource.metadata
        with answering_unavailable(), suppress(errors.NotFound):
            await self._cluster.delete(
                self._kind, meta.namespace, meta.name, uid=meta.uid, resource_version=meta.resource_version
            )
        self._cache.drop(key_of(resource))

    async def change(self, seen: T, transition: Callable[[T], T]) -> T:
        """Apply the transition to what is stored now and write the status if that changes it.

        The transition is pure and may be applied several times. What it refuses for a version that might be out of
        date, it is asked again about the current one. Losing a race is normal: somebody else's result is the answer.
        Raises what the transition raises, Vanished where the object is gone, and Unavailable.
        """
        key = key_of(seen)
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            current, live = self._cache.get(key) or seen, False
            if current.metadata.uid != seen.metadata.uid:
                raise Vanished
            async for _ in self._retry():
                try:
                    wanted = transition(current)
                except Refused:
                    if live:
                        raise
                    current, live = await self._same(seen), True
                    continue
                if wanted == current:
                    return current
                try:
                    return await self._replace_status(wanted)
                except errors.Conflict:
                    current, live = await self._same(seen), True
        raise Unavailable("Too many changes to the same object at once.")

    async def _replace_status(self, wanted: T) -> T:
        try:
            with answering_unavailable():
                return self._seen(await self._cluster.replace_status(self._kind, wanted))
        except errors.NotFound:
            self._cache.drop(key_of(wanted))
            raise Vanished from None
        except BaseException:
            # Also a write that was cut short may have happened: only a read can tell.
            self._cache.drop(key_of(wanted))
            raise

    async def _same(self, seen: T) -> T:
        """The object as it is now, if it is the one that was seen and not one that later took its name."""
        current = await self.fresh(*key_of(seen))
        if current is None or current.metadata.uid != seen.metadata.uid:
            raise Vanished
        return current

    async def _read(self, namespace: str, name: str) -> T | None:
        with answering_unavailable():
            try:
                return self._seen(await self._cluster.get(self._kind, namespace, name))
            except errors.NotFound:
                self._cache.drop((namespace, name))
                return None

    def _seen(self, resource: T) -> T:
        newest = self._cache.put(self._normalise(resource))
        self._tell(newest, deleted=False)
        return newest

    def followed(self, resource: T, deleted: bool) -> None:  # noqa: FBT001 - the signature that watchers call
        """Take note of an event of the watch: cached objects become current, others stay out of the cache."""
        key = key_of(resource)
        if deleted:
            self._cache.remove(key, resource.metadata.resource_version)
        elif key in self._cache:
            self._cache.put(self._normalise(resource))
        self._tell(resource, deleted=deleted)

    def forget(self) -> None:
        """The watch has missed something: nothing that is cached can be relied on."""
        self._cache.clear()

    def _tell(self, resource: T, *, deleted: bool) -> None:
        for listener in self._listeners:
            listener(resource, deleted)
