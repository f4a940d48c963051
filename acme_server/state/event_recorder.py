"""Events for people, in the background: one for each subject, then a series of it.

Clients provoke what Events tell, so Events have bounds: a subject gets one write in a while, a namespace its share of a
minute, and all of them together so many that an hour of them, which is what the API server keeps, stays small.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from kms.clock import Clock
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError, NotFound
from kms.resources.kinds import Kind
from kms.resources.meta import GROUP, PartialObjectMetadata, Resource

logger = logging.getLogger(__name__)

CONTROLLER = f"{GROUP}/server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What an Event says about `regarding`. Notes of one object with the same `reason` and `key` are one series."""

    kind: Kind[Any]
    regarding: Resource
    reason: str
    action: str
    text: str
    key: str = ""
    type_: Literal["Normal", "Warning"] = "Warning"


class _Subject(NamedTuple):
    kind: str
    uid: str
    name: tuple[str, str]
    reason: str
    key: str


@dataclass(slots=True)
class _Series:
    """`name` is that of the Event, once it exists; `count` is how often it happened; `told` is when it was queued."""

    told: datetime
    count: int = 1
    name: str | None = None


@dataclass(slots=True)
class _Waiting:
    note: Note
    series: _Series
    time: datetime


class EventRecorder:
    """Records Events.

    A subject is written about once in `again`; `remembered` of them are known, and `queued` wait to be written. In a
    minute, Events about objects of one namespace are `namespace_share` at most, and `minute_total` altogether.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        instance: str,
        clock: Clock,
        again: timedelta = timedelta(minutes=5),
        remembered: int = 1_000,
        queued: int = 100,
        namespace_share: int = 30,
        minute_total: int = 120,
        new_name: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._cluster = cluster
        self._instance = instance
        self._clock = clock
        self._again = again
        self._remembered = remembered
        self._namespace_share = namespace_share
        self._minute_total = minute_total
        self._new_name = new_name
        self._series: OrderedDict[_Subject, _Series] = OrderedDict()
        self._minute = clock()
        self._spent: Counter[str] = Counter()
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(queued)

    def record(self, note: Note) -> None:
        """Let an Event follow, unless its subject had one a moment ago, or there are too many."""
        metadata, now = note.regarding.metadata, self._clock()
        subject = _Subject(note.kind.plural, metadata.uid, (metadata.namespace, metadata.name), note.reason, note.key)
        series = self._series.get(subject)
        if series is not None:
            series.count += 1
            if now - series.told < self._again:
                return
        if not self._has_room(metadata.namespace, now):
            return
        if series is None:
            series = self._series[subject] = _Series(now)
        series.told = now
        self._series.move_to_end(subject)
        while len(self._series) > self._remembered:
            self._series.popitem(last=False)
        try:
            # An order may take 180 kB; its Event needs the name.
            named = replace(note, regarding=PartialObjectMetadata(metadata=metadata))
            self._queue.put_nowait(_Waiting(named, series, now))
        except asyncio.QueueFull:
            logger.warning(
                "Event not posted: too many are waiting",
                extra={"object": f"{metadata.namespace}/{metadata.name}", "reason": note.reason},
            )
            return
        self._spent[metadata.namespace] += 1

    def _has_room(self, namespace: str, now: datetime) -> bool:
        if now - self._minute >= timedelta(minutes=1):
            self._minute, self._spent = now, Counter()
        return self._spent[namespace] < self._namespace_share and self._spent.total() < self._minute_total

    async def run(self) -> None:
        """Write Events; never returns."""
        while True:
            waiting = await self._queue.get()
            try:
                await self._write(waiting)
            except ClusterError as error:
                logger.warning("Event cannot be posted", extra={"reason": waiting.note.reason, "error": str(error)})
            finally:
                self._queue.task_done()

    async def _write(self, waiting: _Waiting) -> None:
        note, series = waiting.note, waiting.series
        namespace = note.regarding.metadata.namespace
        if series.name is not None:
            try:
                await self._cluster.continue_event(namespace, series.name, count=series.count, time=waiting.time)
            except NotFound:  # the API server keeps Events for an hour
                series.count = 1
            else:
                return
        name = f"{note.regarding.metadata.name[:200]}.{self._new_name()}"
        await self._cluster.create_event(
            note.kind,
            note.regarding,
            type_=note.type_,
            reason=note.reason,
            action=note.action,
            note=note.text,
            controller=CONTROLLER,
            instance=self._instance,
            time=waiting.time,
            name=name,
        )
        series.name = name

    async def idle(self) -> None:
        """Wait until no Event is waiting."""
        await self._queue.join()
