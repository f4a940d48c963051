"""The loop under informers and followers: begin somewhere, watch from there, resume after every fault.

A watch is cheap to resume and easy to lose without noticing. So the loop goes on from the last version that it has
heard of, takes 70 s without a word for a dead connection (a healthy one brings a bookmark each minute), begins anew
only where the API server says that the version is gone, and waits 1 to 30 s, jittered, between failures.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Generic, NoReturn, TypeVar

from kms.cluster.backoff import Backoff, Pace
from kms.cluster.client import Cluster
from kms.cluster.codec import WatchEvent
from kms.cluster.errors import ClusterError, Gone, Unavailable, Undecodable
from kms.resources.kinds import Kind
from kms.resources.meta import Resource

T = TypeVar("T", bound=Resource)

BRIEF_SECONDS = 1.0
"""A watch that ends sooner has not worked, however politely it ended."""
STEADY_SECONDS = 5.0
"""A watch that has been open for longer has worked, even if there was nothing to tell."""

logger = logging.getLogger(__name__)


class Reflector(Generic[T]):
    """Follows one kind in one namespace, or (None) in all of them.

    `begin` makes a fresh start and tells the version to watch from; `on_event` is told of every change after that, and
    of bookmarks.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind[T],
        namespace: str | None,
        *,
        labels: str = "",
        begin: Callable[[], Awaitable[str]],
        on_event: Callable[[WatchEvent[T]], None],
        pace: Pace,
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._namespace = namespace
        self._labels = labels
        self._begin = begin
        self._on_event = on_event
        self._pace = pace
        self._backoff = Backoff(pace.random)
        self._version: str | None = None
        self._heard = pace.monotonic()
        self._interrupted: float | None = pace.monotonic()
        self._open_since = 0.0

    def interrupted(self) -> float:
        """Seconds since there has been no watch; 0 while there is one."""
        return 0.0 if self._interrupted is None else self._pace.monotonic() - self._interrupted

    def last_activity(self) -> float:
        """Seconds since the API server has said anything."""
        return self._pace.monotonic() - self._heard

    async def run(self) -> NoReturn:
        """Follow until cancelled."""
        while True:
            try:
                await self._follow()
            except ClusterError as error:
                self._lost()
                if isinstance(error, (Gone, Undecodable)):
                    self._version = None
                pause = self._backoff.next()
                if isinstance(error, Unavailable) and error.retry_after is not None:
                    pause = max(pause, error.retry_after)
                self._report(error, pause)
                await self._pace.sleep(pause)

    async def _follow(self) -> None:
        """One watch, from the last version heard of to its end."""
        if self._version is None:
            self._version = await self._begin()
            self._heard = self._pace.monotonic()
        started = self._pace.monotonic()
        events = self._cluster.watch(
            self._kind,
            self._namespace,
            resource_version=self._version,
            labels=self._labels,
            on_open=self._opened,
        )
        async with aclosing(events):
            async for event in events:
                self._heard = self._pace.monotonic()
                self._version = event.resource_version or self._version
                self._backoff.reset()
                self._on_event(event)
        if self._pace.monotonic() - started < BRIEF_SECONDS:
            raise Unavailable("the watch ended as soon as it had begun")

    def _opened(self) -> None:
        self._interrupted, self._open_since = None, self._pace.monotonic()

    def _lost(self) -> None:
        """There is no watch any more. If it was steady, what follows is a new fault, not a further one."""
        if self._interrupted is None:
            self._interrupted = self._pace.monotonic()
            if self._interrupted - self._open_since > STEADY_SECONDS:
                self._backoff.reset()

    def _report(self, error: ClusterError, pause: float) -> None:
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


class Reflectors(Generic[T]):
    """One reflector for each namespace, or a single one for all of them where none is named.

    `begin` and `on_event` are those of Reflector, with the namespace (None: all) in front.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind[T],
        namespaces: Sequence[str],
        *,
        labels: str,
        begin: Callable[[str | None], Awaitable[str]],
        on_event: Callable[[str | None, WatchEvent[T]], None],
        pace: Pace | None,
    ) -> None:
        self.begun = asyncio.Event()
        """Set for good once every namespace has begun."""
        self.scopes: tuple[str | None, ...] = tuple(dict.fromkeys(namespaces)) or (None,)
        self._begin = begin
        self._waiting = set(self.scopes)
        self._reflectors = tuple(
            Reflector(
                cluster,
                kind,
                scope,
                labels=labels,
                begin=partial(self._begun, scope),
                on_event=partial(on_event, scope),
                pace=pace or Pace(),
            )
            for scope in self.scopes
        )

    def last_activity(self) -> float:
        """Seconds since the API server has said anything about the namespace that it has been silent about longest."""
        return max(reflector.last_activity() for reflector in self._reflectors)

    def interrupted(self) -> float:
        """Seconds since the namespace that has been without a watch for longest is without one; 0: all are watched."""
        return max(reflector.interrupted() for reflector in self._reflectors)

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for reflector in self._reflectors:
                tasks.create_task(reflector.run())

    async def _begun(self, scope: str | None) -> str:
        version = await self._begin(scope)
        self._waiting.discard(scope)
        if not self._waiting:
            self.begun.set()
        return version
