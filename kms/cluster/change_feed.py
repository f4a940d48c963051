"""Reports the changes of one kind without a copy of all objects, for caches of limited size."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from kms.cluster.client import Cluster
from kms.cluster.codec import Identity, WatchEvent
from kms.cluster.progress import Progress
from kms.cluster.reflector import ReflectorGroup
from kms.cluster.resource_version import number
from kms.cluster.retry import Timing
from kms.resources.kinds import Kind
from kms.resources.meta import Resource, Unreadable

T = TypeVar("T", bound=Resource)

logger = logging.getLogger(__name__)


class ChangeFeed(Generic[T]):
    """Watches from now on and reports every change: `on_change(object, deleted)`.

    If the object does not fit its model, it is `on_unreadable(unreadable, deleted)` instead.

    What `is_known` is not reported. If changes may have been missed, `on_gap()` is called before the first change after
    the gap, and at the start: objects that were cached until then may be outdated. Before that, `on_return()` is called
    if resourceVersions went back, as after a restore of etcd: what is cached may have versions that never were, and is
    not newer than what comes. No callback may wait.

    `patience` is how many seconds `reach` waits at most.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind[T],
        *,
        namespaces: Sequence[str] = (),
        labels: str = "",
        on_change: Callable[[T, bool], None],
        on_unreadable: Callable[[Unreadable, bool], None],
        on_gap: Callable[[], None],
        on_return: Callable[[], None] = lambda: None,
        is_known: Callable[[Identity], bool] | None = None,
        timing: Timing | None = None,
        patience: float = 0.25,
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._on_change = on_change
        self._on_unreadable = on_unreadable
        self._on_gap = on_gap
        self._on_return = on_return
        scopes: tuple[str | None, ...] = tuple(dict.fromkeys(namespaces)) or (None,)
        self._progress = {scope: Progress(patience=patience) for scope in scopes}
        self._reflectors = ReflectorGroup(
            cluster,
            kind,
            scopes,
            labels=labels,
            begin=self._begin,
            on_event=self._report,
            timing=timing,
            is_known=is_known,
        )
        self.following = self._reflectors.started
        """Set for good once every namespace is being watched."""

    def version(self, namespace: str) -> str | None:
        """The resourceVersion up to which all changes of the namespace have been reported; None: there is none yet."""
        return self._reflectors.version(namespace)

    async def reach(self, namespace: str, version: int) -> bool:
        """Whether all changes of the namespace up to that resourceVersion have been reported, or are in a moment.

        False without a wait while the watch is lost, and where resourceVersions are no integers.
        """
        progress = self._progress.get(namespace, self._progress.get(None))
        if progress is None or self._reflectors.outage_seconds_of(namespace):
            return False
        return await progress.reach(version)

    def idle_seconds(self) -> float:
        """Seconds since the API server last sent anything; the longest of all namespaces."""
        return self._reflectors.idle_seconds()

    def outage_seconds(self) -> float:
        """Seconds since the first lost watch was lost; 0 if the watches of all namespaces are open."""
        return self._reflectors.outage_seconds()

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._reflectors.run()

    async def _begin(self, scope: str | None) -> str:
        version = await self._cluster.version(self._kind, scope)
        if self._progress[scope].is_past(number(version)):
            logger.warning(
                "resourceVersions went back, as after a restore of etcd",
                extra={"kind": self._kind.kind, "namespace": scope},
            )
            self._call(self._on_return)
        # Not earlier: objects that are read from now on are at least as new as the start of the watch.
        self._call(self._on_gap)
        self._progress[scope].move(number(version))
        return version

    def _report(self, scope: str | None, event: WatchEvent[T]) -> None:
        if event.object is not None:
            self._call(partial(self._on_change, event.object, event.type == "DELETED"))
        elif event.unreadable is not None:
            self._call(partial(self._on_unreadable, event.unreadable, event.type == "DELETED"))
        if event.resource_version:
            self._progress[scope].move(number(event.resource_version))

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:  # an error of the handler must not end the watch
            logger.exception("change handler failed", extra={"kind": self._kind.kind})
