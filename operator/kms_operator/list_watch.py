"""Keeps the controller's cache current: lists everything, has kopf watch, and lists again after a gap.

First everything is listed, again and again until the API server answers and serves the operator's kinds; so the
operator may be started before either is there. Then kopf's watches run, and everything is listed every ten minutes and
after each gap in a watch, because no event tells of a deletion in a gap. Optional kinds are listed every minute,
and every eight seconds while the operator has objects of them.

If etcd is restored from a snapshot, resourceVersions go back. The API server opens a watch from a version that is not
there yet, and sends nothing. So the operator compares versions every minute, and where they went back, it lists
everything and starts kopf's watches again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from kms.cluster.client import Cluster
from kms.cluster.codec import Listing
from kms.cluster.errors import ClusterError, NotFound, Unavailable
from kms.cluster.resource_version import went_back
from kms.cluster.retry import Backoff
from kms.resources.kinds import AUTHORITIES, NAMESPACES, Kind
from kms.resources.meta import Resource, Unreadable
from kms_operator.controller import Controller
from kms_operator.kinds import WATCHED_KINDS
from kms_operator.kopf_watch import KopfWatch, Login
from kms_operator.listing import list_kind
from kms_operator.metrics import Metrics
from kms_operator.optional_kinds import OptionalKinds
from kms_operator.settings import OperatorSettings

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ListWatch:
    """Feeds one controller, in its event loop.

    `relist_seconds` lie between two lists of everything, `compare_seconds` between two comparisons of versions,
    `optional_seconds` between two lists of the optional kinds, `optional_present_seconds` while there are objects of
    the operator, which others may change, and `optional_soon_seconds` while one of those is missing that a resource
    asks for. After the first sign of a gap, `gap_seconds` pass before everything is listed, since a watch that starts
    over sends many events at once. A watch that lasted `steady_seconds` is restarted with the first backoff again.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        cluster: Cluster,
        controller: Controller,
        metrics: Metrics,
        *,
        login: Login,
        relist_seconds: float = 600.0,
        compare_seconds: float = 60.0,
        gap_seconds: float = 2.0,
        optional_seconds: float = 60.0,
        optional_present_seconds: float = 8.0,
        optional_soon_seconds: float = 10.0,
        steady_seconds: float = 60.0,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._controller = controller
        self._metrics = metrics
        self._login = login
        self._relist_seconds = relist_seconds
        self._compare_seconds = compare_seconds
        self._gap_seconds = gap_seconds
        self._optional_seconds = optional_seconds
        self._optional_present_seconds = optional_present_seconds
        self._optional_soon_seconds = optional_soon_seconds
        self._steady_seconds = steady_seconds
        self._loop = asyncio.get_running_loop()
        self._gap = asyncio.Event()
        self._optional_kinds = OptionalKinds(settings, cluster, controller)
        # Labels of namespaces need a cluster-wide permission, which an operator of a few namespaces does not have.
        self._kinds = tuple(each for each in WATCHED_KINDS if each is not NAMESPACES or not settings.watch_namespaces)
        self._kopf_watch: KopfWatch | None = None
        self.synced = False
        """Whether everything has been listed once."""

    async def sync(self) -> None:
        """List everything for the first time."""
        await self._list()
        self._optional_complete = await self._optional_kinds.refresh(first=True)
        self.synced = True

    async def run(self) -> None:
        """Watch and list, until cancelled; `sync` comes first."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_watching())
            group.create_task(self._keep_listing())
            group.create_task(self._keep_comparing_versions())
            group.create_task(self._keep_refreshing_optional_kinds())

    async def _keep_listing(self) -> None:
        while True:
            if await _wait_for(self._gap, self._relist_seconds):
                await asyncio.sleep(self._gap_seconds)
            self._gap.clear()
            await self._list()

    async def _list(self) -> None:
        """List everything. If a list fails, only that one is repeated.

        Otherwise an API server that refuses every third request would hardly ever answer all of them in a row.
        """
        for kind in self._kinds:
            listing, since = await _retry(partial(self._list_kind, kind))
            self._controller.handle_list(kind, listing, since=since)
            if went_back(since, listing.resource_version):
                self._on_restored(kind)
        await _retry(self._read_namespaces)
        self._controller.enqueue_all()
        self._metrics.refreshes.inc()

    async def _list_kind(self, kind: Kind[Any]) -> tuple[Listing[Any], str]:
        """List the kind. The second value is the newest version that was known before."""
        since = self._controller.cache.newest(kind)
        return await list_kind(self._cluster, kind, self._settings), since

    def _on_restored(self, kind: Kind[Any]) -> None:
        logger.warning("resourceVersions went back, as after a restore of etcd", extra={"kind": kind.kind})
        if self._kopf_watch is not None:
            self._kopf_watch.stop()  # it waits for versions that may never come; another one begins with a list

    async def _keep_comparing_versions(self) -> None:
        """List everything if versions went back. One kind tells it of all."""
        namespace = next(iter(self._settings.watch_namespaces), None)
        while True:
            await asyncio.sleep(self._compare_seconds)
            since = self._controller.cache.newest(AUTHORITIES)
            try:
                version = await self._cluster.version(AUTHORITIES, namespace)
            except ClusterError as error:
                logger.debug("versions not compared", extra={"error": str(error)})
                continue
            if went_back(since, version):
                self._gap.set()
            self._controller.cache.note_version(AUTHORITIES, version)

    async def _keep_refreshing_optional_kinds(self) -> None:
        wanted = self._controller.optional_kinds_wanted
        while True:
            await _wait_for(wanted, self._optional_interval())
            wanted.clear()
            self._optional_complete = await self._optional_kinds.refresh()

    def _optional_interval(self) -> float:
        if not self._optional_complete:
            return self._optional_soon_seconds
        present = self._controller.has_optional_objects()
        return min(self._optional_seconds, self._optional_present_seconds) if present else self._optional_seconds

    async def _read_namespaces(self) -> None:
        """Read the namespaces of an operator that may not watch all."""
        for name in self._settings.watch_namespaces:
            try:
                namespace = await self._cluster.get(NAMESPACES, "", name)
            except NotFound:
                logger.warning("namespace not found", extra={"namespace": name})
            else:
                self._controller.handle_upsert(NAMESPACES, namespace, live=True)

    async def _keep_watching(self) -> None:
        """Run kopf's watches; when kopf gives up, start them again and list what they missed."""
        backoff = Backoff()
        while True:
            began = self._loop.time()
            with self._metrics.watching.track_inprogress():
                error = await self._watch()
            if self._loop.time() - began > self._steady_seconds:
                backoff.reset()
            delay = backoff.next()
            logger.warning("watches ended", extra={"error": repr(error), "retry_in_seconds": round(delay, 1)})
            await asyncio.sleep(delay)
            self._gap.set()

    async def _watch(self) -> BaseException | None:
        """Watch in a thread until kopf gives up; returns its error."""
        self._kopf_watch = watch = KopfWatch(self._settings, self._kinds, deliver=self._deliver, login=self._login)
        thread = asyncio.ensure_future(asyncio.to_thread(watch.run))
        try:
            await asyncio.wait((thread,))
        finally:
            self._kopf_watch = None
            watch.stop()
        return thread.exception()

    def _deliver(self, kind: Kind[Any], type_: str | None, resource: Resource | Unreadable) -> None:
        """Pass an event from kopf's thread to the event loop."""
        self._loop.call_soon_threadsafe(self._handle, kind, type_, resource)

    def _handle(self, kind: Kind[Any], type_: str | None, resource: Resource | Unreadable) -> None:
        if type_ == "DELETED":
            self._controller.handle_delete(kind, resource)
            return
        if isinstance(resource, Unreadable):
            self._controller.handle_unreadable(kind, resource)
        else:
            self._controller.handle_upsert(kind, resource)
        if type_ is None:
            self._gap.set()  # the event is from a list: the watch began anew


async def _retry(step: Callable[[], Awaitable[T]]) -> T:
    """Repeat the step until it succeeds."""
    backoff = Backoff()
    while True:
        try:
            return await step()
        except ClusterError as error:
            requested = error.retry_after if isinstance(error, Unavailable) else None
            delay = max(backoff.next(), requested or 0.0)
            logger.warning("listing failed", extra={"error": str(error), "retry_in_seconds": round(delay, 1)})
            await asyncio.sleep(delay)


async def _wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, or for so many seconds. Returns whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
