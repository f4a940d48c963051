"""The loop under informers and change feeds: list or read a version, watch from there, resume after every failure.

A watch is cheap to resume and easy to lose without noticing. So the loop resumes from the last resourceVersion that it
received, takes a connection that is silent for 70 s for dead (a healthy one sends a bookmark each minute), starts over
only where the API server answers that the version is gone, or is older itself, and waits 1 to 30 s, jittered, between
failures.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Generic, NoReturn, TypeVar

from kms.cluster.client import Cluster
from kms.cluster.codec import Identity, WatchEvent
from kms.cluster.errors import ClusterError, Forbidden, Gone, Unavailable, Undecodable, Unserved
from kms.cluster.resource_version import went_back
from kms.cluster.retry import Backoff, Timing
from kms.resources.kinds import Kind
from kms.resources.meta import Resource

T = TypeVar("T", bound=Resource)

logger = logging.getLogger(__name__)


class _EndedAtOnce(ClusterError):
    """The API server accepted a watch and ended it."""


class Reflector(Generic[T]):
    """Follows one kind in one namespace, or (None) in all of them.

    `begin` starts over and returns the version to watch from; `on_event` is called with every change after that, and
    with bookmarks. A watch that ends within `brief` seconds counts as a failure, even without an error.
    One that has been open for more than `steady` seconds has worked, even without an event. While the API server does
    not answer, it is asked again after `reconnect` seconds at most. With `refused`, it is asked again after that many
    seconds where it forbids the watch or does not serve the kind: both are for a person to change. For `is_known`, see
    Cluster.watch.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind[T],
        namespace: str | None,
        *,
        labels: str = "",
        fields: str = "",
        begin: Callable[[], Awaitable[str]],
        on_event: Callable[[WatchEvent[T]], None],
        timing: Timing,
        brief: float = 1.0,
        steady: float = 5.0,
        reconnect: float = 4.0,
        refused: float | None = None,
        is_known: Callable[[Identity], bool] | None = None,
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._is_known = is_known
        self._namespace = namespace
        self._refused = refused
        self._labels = labels
        self._fields = fields
        self._begin = begin
        self._on_event = on_event
        self._timing = timing
        self._brief = brief
        self._steady = steady
        self._backoff = Backoff(random=timing.random)
        self._reconnect = Backoff(longest=reconnect, random=timing.random)
        self._version: str | None = None
        self._last_heard = timing.monotonic()
        self.is_open = False
        """Whether `begin` has succeeded and the watch is open."""
        self._lost_at = timing.monotonic()
        self._open_since = 0.0
        self._started_over = False
        """Whether the version was gone, and no event has come since."""
        self._was_silent = False
        """Whether no event has come since a watch was opened, not even a bookmark."""

    @property
    def version(self) -> str | None:
        """The resourceVersion up to which all changes have been reported; None before it has begun."""
        return self._version

    def outage_seconds(self) -> float:
        """Seconds since the watch was lost; 0 while it is open."""
        return 0.0 if self.is_open else self._timing.monotonic() - self._lost_at

    def idle_seconds(self) -> float:
        """Seconds since the API server last sent anything."""
        return self._timing.monotonic() - self._last_heard

    async def run(self) -> NoReturn:
        """Follow until cancelled."""
        while True:
            try:
                await self._follow()
            except ClusterError as error:
                self._note_lost()
                if isinstance(error, (Gone, Undecodable)):
                    self._version = None
                if isinstance(error, Gone) and not self._started_over:
                    # The API server is back and has forgotten the version: list at once, whatever failed before.
                    self._backoff.reset()
                    self._started_over = True
                pause = self._pause(error)
                self._log(error, pause)
                await self._timing.sleep(pause)

    def _pause(self, error: ClusterError) -> float:
        if self._refused is not None and isinstance(error, (Forbidden, Unserved)):
            return self._refused
        if not isinstance(error, Unavailable):
            return self._backoff.next()
        # What it refuses next, it refuses because it has just started.
        self._backoff.reset()
        return max(self._reconnect.next(), error.retry_after or 0.0)

    async def _follow(self) -> None:
        """Watch once, from the last version received to the end of the watch."""
        if self._was_silent and await self._has_gone_back():
            self._version = None
        if self._version is None:
            self._version = await self._begin()
            self._last_heard = self._timing.monotonic()
        started = self._timing.monotonic()
        events = self._cluster.watch(
            self._kind,
            self._namespace,
            resource_version=self._version,
            labels=self._labels,
            fields=self._fields,
            on_open=self._note_open,
            is_known=self._is_known,
        )
        async with aclosing(events):
            async for event in events:
                self._last_heard = self._timing.monotonic()
                self._version = event.resource_version or self._version
                if self._was_silent:
                    self._reset()
                    self._started_over = self._was_silent = False
                self._on_event(event)
        if self._timing.monotonic() - started < self._brief:
            raise _EndedAtOnce("the watch ended as soon as it had begun")

    async def _has_gone_back(self) -> bool:
        """Whether the version has not come yet, as after a restore of etcd from a snapshot.

        The API server opens such a watch, and is silent until it has.
        """
        if self._version is None or self._timing.monotonic() - self._open_since <= self._steady:
            return False
        selectors = {"labelSelector": self._labels, "fieldSelector": self._fields}
        query = {name: value for name, value in selectors.items() if value}
        newest = await self._cluster.raw_page(self._kind, self._namespace, limit=1, query=query)
        return went_back(self._version, newest.resource_version)

    def _reset(self) -> None:
        self._backoff.reset()
        self._reconnect.reset()

    def _note_open(self) -> None:
        self.is_open, self._open_since, self._was_silent = True, self._timing.monotonic(), True

    def _note_lost(self) -> None:
        """Note the loss of the watch. After a steady one, the backoff starts over."""
        if self.is_open:
            self.is_open, self._lost_at = False, self._timing.monotonic()
            if self._lost_at - self._open_since > self._steady:
                self._reset()

    def _log(self, error: ClusterError, pause: float) -> None:
        logger.warning(
            "watch interrupted",
            extra={
                "kind": self._kind.kind,
                "namespace": self._namespace,
                "resumes": self._version is not None,
                "pause": round(pause, 1),
                "error": str(error),
            },
        )


class ReflectorGroup(Generic[T]):
    """One reflector for each scope: a namespace, or (None) all of them together.

    `begin` and `on_event` are those of Reflector, with the scope as first argument; `is_known` has no scope.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind[T],
        scopes: Sequence[str | None],
        *,
        labels: str,
        begin: Callable[[str | None], Awaitable[str]],
        on_event: Callable[[str | None, WatchEvent[T]], None],
        timing: Timing | None,
        refused: float | None = None,
        is_known: Callable[[Identity], bool] | None = None,
    ) -> None:
        self.started = asyncio.Event()
        """Set for good once `begin` has succeeded for every scope."""
        self._begin = begin
        self._waiting = set(scopes)
        self._by_scope = {
            scope: Reflector(
                cluster,
                kind,
                scope,
                labels=labels,
                begin=partial(self._start, scope),
                on_event=partial(on_event, scope),
                timing=timing or Timing(),
                refused=refused,
                is_known=is_known,
            )
            for scope in scopes
        }
        self._reflectors = tuple(self._by_scope.values())

    def version(self, namespace: str) -> str | None:
        """The resourceVersion up to which all changes of the namespace have been reported; None: there is none yet."""
        reflector = self._of(namespace)
        return reflector.version if reflector is not None else None

    def outage_seconds_of(self, namespace: str) -> float:
        """Seconds since the watch of the namespace was lost; 0: it is open, or there is none."""
        reflector = self._of(namespace)
        return reflector.outage_seconds() if reflector is not None else 0.0

    def _of(self, namespace: str) -> Reflector[T] | None:
        return self._by_scope.get(namespace) or self._by_scope.get(None)

    def idle_seconds(self) -> float:
        """Seconds since the API server last sent anything; the longest of all namespaces."""
        return max(map(Reflector.idle_seconds, self._reflectors))

    def are_open(self) -> bool:
        """Whether `begin` has succeeded for every scope, and all watches are open."""
        for each in self._reflectors:  # noqa: SIM110 - asked several times a request: no generator
            if not each.is_open:
                return False
        return True

    def outage_seconds(self) -> float:
        """Seconds since the first of the watches that are lost now was lost; 0: all are open."""
        return max(map(Reflector.outage_seconds, self._reflectors))

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for reflector in self._reflectors:
                tasks.create_task(reflector.run())

    async def _start(self, scope: str | None) -> str:
        version = await self._begin(scope)
        self._waiting.discard(scope)
        if not self._waiting:
            self.started.set()
        return version
