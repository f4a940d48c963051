"""All objects of a kind by one watch (sendInitialEvents), as client-go's reflectors read them: a streaming list.

The API server sends them from its cache, one after the other, and keeps no more than a buffer of them. A list page by
page reads and decodes every page from etcd where the API server has no snapshot of its cache, which it drops with
each compaction and makes with the next write of the kind: without one, 100,000 orders take four times as long.

Not every API server offers this (feature gate WatchList), and a proxy may cut it: callers then list page by page.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from kms.cluster.client import Cluster
from kms.cluster.codec import WatchEvent, decode_event
from kms.cluster.errors import ClusterError, Delivery, Gone, Invalid, Unavailable, Undecodable
from kms.cluster.retry import Timing
from kms.resources.kinds import Kind
from kms.resources.meta import Resource

T = TypeVar("T", bound=Resource)

_BATCH = 100
"""Objects that are decoded before others have a turn: a few milliseconds."""
_LONG = 64 * 1024
"""Octets beyond which an event is decoded in a thread."""
_PAUSE = 1.0


class NotStreamed(ClusterError):
    """The API server offers no streaming list, or it did not come to its end: list page by page."""


async def watch_list(
    cluster: Cluster,
    kind: Kind[T],
    namespace: str | None = None,
    *,
    silence: float = 15.0,
    patience: float = 60.0,
    longest: float = 1800.0,
    timing: Timing | None = None,
) -> AsyncGenerator[WatchEvent[T], None]:
    """Every object in one namespace or (None) everywhere, as an event; the last one is the bookmark that ends them.

    Among the events may be changes and deletions since the watch began. An API server that is filling its cache is
    asked again for `patience` seconds. `silence` is how many seconds the next event may take, `longest` how many all of
    them.

    Raises NotStreamed, possibly after some events, and Forbidden.
    """
    timing = timing or Timing()
    began = timing.monotonic()
    while True:
        try:
            ends = timing.monotonic() + longest
            async with aclosing(_events(cluster, kind, namespace, silence)) as events:
                async for event in events:
                    if timing.monotonic() > ends:
                        raise NotStreamed(f"not all objects came within {longest:.0f} s")
                    yield event
        except (Gone, Invalid, Unavailable, Undecodable) as error:
            pause = _pause(error)
            if pause is None or timing.monotonic() + pause - began > patience:
                raise NotStreamed(str(error)) from error
            await timing.sleep(pause)
        else:
            return


async def _events(
    cluster: Cluster, kind: Kind[T], namespace: str | None, silence: float
) -> AsyncGenerator[WatchEvent[T], None]:
    """The events of one watch up to that bookmark. Raises what `Cluster.initial_events` raises."""
    async with aclosing(cluster.initial_events(kind, namespace, silence=silence)) as batches:
        async for lines in batches:
            for first in range(0, len(lines), _BATCH):
                for line in lines[first : first + _BATCH]:
                    event = await _decoded(kind, line)
                    if event.type == "BOOKMARK" and not event.ends_initial_events:
                        # Of a stream, the first bookmark ends the objects: this is a watch that goes on for ever.
                        raise NotStreamed("the API server has taken no notice of sendInitialEvents")
                    yield event
                    if event.ends_initial_events:
                        return
                await asyncio.sleep(0)
    raise Unavailable("the watch ended before it had sent all objects")


async def _decoded(kind: Kind[T], line: bytes) -> WatchEvent[T]:
    return decode_event(kind, line) if len(line) <= _LONG else await asyncio.to_thread(decode_event, kind, line)


def _pause(error: ClusterError) -> float | None:
    """Seconds until the API server may be asked again; None: it will not answer otherwise soon.

    While its cache is being filled from etcd, it answers 429 at once, before any event.
    """
    if isinstance(error, Unavailable) and error.delivery is Delivery.NOT_BEGUN and error.retry_after is not None:
        return max(error.retry_after, _PAUSE)
    return None
