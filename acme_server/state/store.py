"""The repository: accounts and orders as custom resources. The server writes them nowhere else.

Answers come from a bounded cache; this replica's own writes and a watch keep it current. Before they refuse something,
callers read live (`read_live`). A transition applies to the current version, not to the one that its caller saw.

The commands `kms-acme revoke` and `kms-acme account` work without a server: they apply the same transitions through the
API, with the rights of their user's kubeconfig.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Generic, Literal, TypeVar
from weakref import WeakValueDictionary

from msgspec.structs import replace

from acme_server.problems import NotFound, Refused, Unavailable
from acme_server.sessions import SESSION, may_show
from acme_server.state.cache import Cache, SharedReads
from acme_server.state.index import Index
from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.cluster.codec import Identity
from kms.cluster.resource_version import newer
from kms.cluster.retry import Attempts
from kms.resources.kinds import Kind
from kms.resources.meta import Key, ObjectMeta, Resource, Unreadable, key_of

T = TypeVar("T", bound=Resource)
N = TypeVar("N", bound=Resource | None)

logger = logging.getLogger(__name__)

_EXPECTED: tuple[type[errors.ClusterError], ...] = (errors.NotFound, errors.Conflict, errors.AlreadyExists)
"""Errors that mean something to who writes an object."""
_IN_DOUBT = 50
"""Writes whose answer was lost that are remembered until the object is seen again: at most 18 MB."""


class Vanished(NotFound):
    """The object to change no longer exists. For clients this is the same as if it had never existed."""


class NotKept(Unavailable):
    """The API server has refused a strict write: its schema may be that of an earlier release. Nothing is written."""

    def __init__(self) -> None:
        super().__init__("The Kubernetes API does not allow this at the moment.", 30)


Verb = Literal["get", "list", "create", "update", "delete"]
OnRefused = Callable[[Verb, Resource | None, errors.ClusterError], None]
"""Called with what was to be done to which object (None: only read), and with what the API server said."""


def _log_only(_verb: Verb, _resource: Resource | None, error: errors.ClusterError) -> None:
    log_refusal(error)


def _is_same(resource: T, other: T) -> bool:
    """Whether two versions of an object differ in their metadata only."""
    changed: object = replace(resource, metadata=other.metadata)  # type: ignore[type-var]  # resources are structs
    return changed == other


def identity(resource: T) -> T:
    """The resource."""
    return resource


def log_refusal(error: errors.ClusterError) -> None:
    """Log that the API server refused a request."""
    logger.warning("the Kubernetes API refused a request", extra={"error": str(error)})


@contextmanager
def answering_unavailable(
    on_refused: Callable[[errors.ClusterError], None] = log_refusal,
    *,
    expected: tuple[type[errors.ClusterError], ...] = _EXPECTED,
) -> Iterator[None]:
    """Raise Unavailable for what the API server cannot do now. `expected` errors pass unchanged.

    `on_refused` is called with a refusal that a person has to lift: the client may repeat its request until then.
    """
    try:
        yield
    except expected:
        raise
    except errors.ClusterError as error:
        raise _unavailable(error, on_refused) from error


def _unavailable(error: errors.ClusterError, on_refused: Callable[[errors.ClusterError], None]) -> Unavailable:
    """What a client is told of an error of the API server."""
    if isinstance(error, errors.Unavailable):
        return Unavailable("The Kubernetes API does not answer.", max(1, round(error.retry_after or 2)))
    if isinstance(error, errors.Undecodable):
        # A person has to correct the object; the log says which field. It counts as absent, and that grants nothing.
        logger.warning("an object cannot be read", extra={"error": str(error)})
        return Unavailable("An object in the Kubernetes API cannot be read.", 30)
    # Quota, admission, RBAC or schema. Admission policies and webhooks choose the status code themselves.
    on_refused(error)
    return Unavailable("The Kubernetes API does not allow this at the moment.", 30)


@contextmanager
def _reading_page(on_refused: Callable[[errors.ClusterError], None]) -> Iterator[None]:
    """Raise NotFound for a token of a page that has expired or is invalid, and Unavailable as above."""
    with answering_unavailable(on_refused, expected=()):
        try:
            yield
        except (errors.Gone, errors.Invalid) as error:
            raise NotFound("This page of the list has expired; read the list from its beginning.") from error


class Store(Generic[T]):
    """Resources of one kind.

    The cache has up to `capacity` objects, of `octets` together as `weigh` weighs them. `normalise` is applied to every
    object that the API server returns. `index` learns of every version of every object, written here or seen in the
    watch. `is_sole_writer` says whether no other replica can have written in the last minute: only then does the cache
    hold the latest version. `admit_write` is called with each object before it is written; it may raise Unavailable.
    `on_refused` is called with each refusal of the API server that a person has to lift. `on_written` is called once
    for each write that this replica makes, with the object before (None: it is new) and after it.
    `is_watched` says whether the watch is open. `reach` says whether the watch of a namespace has come to a
    resourceVersion, or does so in a moment; with it, sessions of clients note what they see of these objects.
    `keep_event` says whether an object that the watch brings is cached although nobody has asked for it here. `trusted`
    is how many seconds a cached version is good for what other replicas may change, after it was confirmed.
    `is_strict` says of a change, by the object before and after it, whether the API server must know all of its fields.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind[T],
        *,
        capacity: int,
        octets: int = sys.maxsize,
        weigh: Callable[[T], int] = lambda _resource: 0,
        normalise: Callable[[T], T] = identity,
        index: Index[T] | None = None,
        is_sole_writer: Callable[[], bool] = lambda: True,
        is_watched: Callable[[], bool] = lambda: False,
        admit_write: Callable[[T], None] = lambda _resource: None,
        on_refused: OnRefused = _log_only,
        on_written: Callable[[T | None, T], None] = lambda _before, _after: None,
        reach: Callable[[str, int], Awaitable[bool]] | None = None,
        keep_event: Callable[[T], bool] = lambda _resource: False,
        trusted: float = 10.0,
        is_strict: Callable[[T, T], bool] = lambda _before, _after: False,
        retry: Callable[[], AsyncIterator[int]] = Attempts,
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._cache: Cache[T] = Cache(capacity, octets=octets, weigh=weigh)
        self._normalise = normalise
        self._index = Index() if index is None else index
        self.is_sole_writer = is_sole_writer
        self._is_watched = is_watched
        self._admit_write = admit_write
        self._on_refused = on_refused
        self._on_written = on_written
        self._reach = reach
        self._keep_event = keep_event
        self._trusted = trusted
        self._is_strict = is_strict
        self._retry = retry
        self._in_doubt: OrderedDict[Key, tuple[T, T]] = OrderedDict()
        self._reads: SharedReads[T | None] = SharedReads(self._read)
        # In this process one writer at a time changes an object: transitions queue up here instead of conflicting.
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._cache)

    def get_cached(self, namespace: str, name: str) -> T | None:
        """The cached object; None says nothing about whether it exists."""
        return self._cache.get((namespace, name))

    async def get(self, namespace: str, name: str) -> T | None:
        """The cached object, else the result of a live read; None: it does not exist. Raises Unavailable."""
        return self._note(self._cache.get((namespace, name))) or await self.read_live(namespace, name)

    async def read_live(self, namespace: str, name: str) -> T | None:
        """The object as a live read returns it: the ground for every refusal. Raises Unavailable."""
        return self._note(await self._reads(namespace, name))

    async def catch_up(self, namespace: str) -> bool:
        """Wait a moment until the cache has all that the client of this request has seen and written; whether it has.

        False if it is unknown what the client has seen, or if the watch does not come so far in time.
        """
        if self.is_sole_writer():
            return True
        session = SESSION.get()
        if session is None or session.seen is None or self._reach is None:
            return False
        return await self._reach(namespace, session.seen.version)

    async def recent(self, namespace: str, name: str) -> T | None:
        """The object as its client has left it, or newer: from the cache once it has caught up, else live.

        What another client does is in it within the delay of the watch. None: it does not exist. Raises Unavailable.
        """
        if self.is_sole_writer():
            return await self.get(namespace, name)
        if not await self.catch_up(namespace):
            return await self.read_live(namespace, name)
        session, cached = SESSION.get(), self._cache.get((namespace, name))
        if cached is None or session is None or session.seen is None:
            return await self.read_live(namespace, name)
        age, version = self._cache.age((namespace, name)), cached.metadata.resource_version
        if not may_show(version, name, session.seen, age=age, trusted=self._trusted):
            return await self.read_live(namespace, name)
        return self._note(cached)

    async def current(self, namespace: str, name: str) -> T | None:
        """The latest version of the object: from the cache, or live where another replica may have written.

        None: it does not exist. Raises Unavailable.
        """
        return await (self.get if self.is_sole_writer() else self.read_live)(namespace, name)

    async def watched(self, namespace: str, name: str) -> T | None:
        """The object as the watch shows it, or live while the watch is interrupted; it decides nothing for good.

        None: it does not exist. Raises Unavailable.
        """
        return await (self.get if self._is_watched() or self.is_sole_writer() else self.read_live)(namespace, name)

    async def page(
        self, namespace: str, *, labels: str = "", fields: str = "", limit: int, token: str = ""
    ) -> tuple[tuple[T, ...], str]:
        """At most `limit` objects that match these selectors, and the token of the next page ("": this is the last).

        Raises NotFound if the token has expired or is invalid, and Unavailable.
        """
        with _reading_page(partial(self._on_refused, "list", None)):
            page = await self._cluster.page(
                self._kind, namespace, labels=labels, fields=fields, limit=limit, token=token
            )
        return tuple(self._take(each) for each in page.items), page.continue_token

    async def metadata_page(
        self, namespace: str, *, labels: str = "", fields: str = "", limit: int, token: str = ""
    ) -> tuple[tuple[ObjectMeta, ...], str]:
        """The metadata of the objects that `page` returns whole. Raises what `page` raises."""
        with _reading_page(partial(self._on_refused, "list", None)):
            page = await self._cluster.metadata_page(
                self._kind, namespace, labels=labels, fields=fields, limit=limit, token=token
            )
        return tuple(each.metadata for each in page.items), page.continue_token

    async def add(self, resource: T) -> T:
        """Create the object. Raises AlreadyExists and Unavailable."""
        self._admit_write(resource)
        try:
            created = await self._cluster.create(self._kind, resource)
        except errors.AlreadyExists:
            raise
        except errors.NotFound as error:
            raise Unavailable("The namespace of the profile is gone.", 30) from error
        except errors.Conflict as error:  # several objects at once count against one ResourceQuota
            raise Unavailable("The Kubernetes API is busy.") from error
        except errors.ClusterError as error:
            raise _unavailable(error, partial(self._on_refused, "create", resource)) from error
        self._on_written(None, created)
        return self._note(self._take(created), written=True)

    async def remove(self, metadata: ObjectMeta) -> bool:
        """Delete the object in exactly this version. Returns whether it still existed.

        Raises Conflict if it has another version now, and Unavailable.
        """
        key = metadata.namespace, metadata.name
        try:
            with answering_unavailable(partial(self._on_refused, "delete", None)):
                await self._cluster.delete(
                    self._kind, *key, uid=metadata.uid, resource_version=metadata.resource_version
                )
        except errors.NotFound:
            return False
        finally:
            self._cache.drop(key)
        return True

    async def change(self, resource: T, transition: Callable[[T], T]) -> T:
        """Apply the transition to the stored object and write the status if that changes it.

        The transition is pure and may be applied several times. If it refuses a version that might be outdated, it is
        applied again to a live read. Losing a race is normal: the result of another writer is then the result.
        Raises what the transition raises, Vanished if the object no longer exists, NotKept and Unavailable.
        """
        key = key_of(resource)
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            current, live = self._cache.get(key) or resource, False
            if current.metadata.uid != resource.metadata.uid:
                raise Vanished
            lost: errors.Conflict | None = None
            async for _ in self._retry():
                try:
                    wanted = transition(current)
                except Refused:
                    if live:
                        raise
                    current, live = await self._read_same(resource), True
                    continue
                if wanted == current:
                    return self._note(current)
                try:
                    return await self._replace_status(current, wanted)
                except errors.Conflict as error:
                    lost = error
                    current, live = await self._read_same(resource), True
        raise Unavailable("Too many changes to the same object at once.") from lost

    async def _replace_status(self, current: T, wanted: T) -> T:
        self._admit_write(wanted)
        key, strict = key_of(wanted), self._is_strict(current, wanted)
        try:
            written = await self._replace(wanted, strict=strict)
        except errors.NotFound:
            self._cache.drop(key)
            raise Vanished from None
        except errors.Conflict:
            self._cache.drop(key)
            raise
        except BaseException:
            # An interrupted write may have happened: only a read can tell.
            self._cache.drop(key)
            self._in_doubt[key] = current, wanted
            while len(self._in_doubt) > _IN_DOUBT:
                self._in_doubt.popitem(last=False)
            raise
        self._on_written(current, wanted)
        return self._note(self._take(written), written=True)

    async def _replace(self, wanted: T, *, strict: bool) -> T:
        try:
            return await self._cluster.replace_status(self._kind, wanted, strict=strict)
        except _EXPECTED:
            raise
        except errors.ClusterError as error:
            if strict and isinstance(error, errors.Invalid):
                raise NotKept from error
            raise _unavailable(error, partial(self._on_refused, "update", wanted)) from error

    def _settle(self, resource: T) -> None:
        """Find out whether a write of ours happened whose answer was lost, from a version of the object."""
        key = key_of(resource)
        before, wanted = self._in_doubt[key]
        if not newer(resource.metadata.resource_version, before.metadata.resource_version):
            return
        del self._in_doubt[key]
        if _is_same(resource, wanted):
            self._on_written(before, wanted)

    async def _read_same(self, resource: T) -> T:
        """A live read of the object. Raises Vanished if it is gone or another object has taken its name."""
        current = await self.read_live(*key_of(resource))
        if current is None or current.metadata.uid != resource.metadata.uid:
            raise Vanished
        return current

    async def _read(self, namespace: str, name: str) -> T | None:
        with answering_unavailable(partial(self._on_refused, "get", None), expected=(errors.NotFound,)):
            try:
                return self._take(await self._cluster.get(self._kind, namespace, name))
            except errors.NotFound:
                self._cache.drop((namespace, name))
                return None

    def _take(self, resource: T) -> T:
        """Cache and index an object that the API server has returned. Returns its newest known version."""
        normalised = self._normalise(resource)
        if key_of(resource) in self._in_doubt:
            self._settle(normalised)
        newest = self._cache.put(normalised)
        self._index.update(newest, False)
        return newest

    def is_known(self, seen: Identity) -> bool:
        """Whether an event of the watch says nothing new: most are about writes of this replica.

        The index may have a version from a list that the cache does not have.
        """
        key, version = (seen.namespace, seen.name), seen.resource_version
        return (
            key not in self._in_doubt
            and self._index.is_current(key, version)
            and not self._cache.is_outdated(key, version)
        )

    def _note(self, resource: N, *, written: bool = False) -> N:
        """Note in the session of the client, if there is one, that it sees this version."""
        if resource is not None and self._reach is not None and (session := SESSION.get()) is not None:
            session.note(resource.metadata.resource_version, resource.metadata.name, written=written)
        return resource

    def apply_event(self, resource: T, deleted: bool) -> None:  # noqa: FBT001 - the signature of watch callbacks
        """Take in an event of the watch: it updates cached objects, and adds those that `keep_event` wants."""
        key = key_of(resource)
        if key in self._in_doubt:
            self._settle(self._normalise(resource))
        if deleted:
            self._cache.remove(key, resource.metadata.resource_version)
        elif key in self._cache or self._keep_event(resource):
            self._cache.put(self._normalise(resource))
        self._index.update(resource, deleted)

    def apply_unreadable(self, unreadable: Unreadable, deleted: bool) -> None:  # noqa: FBT001 - likewise
        """Take in an event whose object cannot be read: its older version is no longer used."""
        metadata = unreadable.metadata
        self._cache.remove((metadata.namespace, metadata.name), metadata.resource_version)
        (self._index.delete if deleted else self._index.obscure)(metadata)

    def forget(self) -> None:
        """Take whatever comes for newer than what is known: resourceVersions went back."""
        self._cache.forget()
        self._index.forget_versions()
        self._in_doubt.clear()

    def clear(self) -> None:
        """Empty the cache: the watch has missed changes."""
        self._cache.clear()
