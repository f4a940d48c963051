"""All objects of a kind, page by page: never all of them in memory, and without blocking the event loop.

For every page, an API server iterates over all objects that are left, so few long pages cost it less than many short
ones. While one page is decoded here, the API server prepares the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from kms.cluster.client import Cluster
from kms.cluster.codec import Page, decode_items
from kms.cluster.errors import TooLong, Unavailable
from kms.resources.kinds import Kind
from kms.resources.meta import Resource, Unreadable

T = TypeVar("T", bound=Resource)

_FIRST, _SMALLEST, _LARGEST = 100, 50, 2_000
"""Objects of a page. The first page tells how long objects are; an order has up to 190 kB."""
_OCTETS = 8_000_000
"""The aim for the length of a page: it is in memory as a whole, and should arrive well within a call's deadline."""
_MOST = 3
"""How many times as long as intended a page may be: the objects of the next namespace may be much longer."""
_BATCH = 100
"""Objects that are decoded before others have a turn: a few milliseconds."""
_TRIES = 4

logger = logging.getLogger(__name__)


async def list_all(
    cluster: Cluster,
    kind: Kind[T],
    namespace: str | None = None,
    *,
    on_unreadable: Callable[[Unreadable], None],
    fields: str = "",
    pause: float = 5.0,
    octets: int = _OCTETS,
) -> AsyncGenerator[T, None]:
    """All objects of one snapshot that the field selector chooses, in one namespace or (None) everywhere.

    `on_unreadable` is called with each object that does not fit its model. A page that does not arrive is requested
    again after `pause` seconds, with half as many objects; one that is much longer than `octets`, at once with a
    quarter.

    Raises what `Cluster.page` raises: Unavailable if a page did not arrive in four attempts, Gone if the list
    took longer than the API server keeps a snapshot.
    """
    pages = _Pages(cluster, kind, namespace, pause, fields=fields, most=_MOST * octets)
    upcoming: asyncio.Task[Page] | None = asyncio.create_task(pages.page("", _FIRST))
    try:
        while upcoming is not None:
            page, upcoming = await upcoming, None
            if page.continue_token:
                upcoming = asyncio.create_task(pages.page(page.continue_token, _limit(page, octets)))
            for first in range(0, len(page.items), _BATCH):
                found, unreadable = decode_items(kind, page.items[first : first + _BATCH])
                for unread in unreadable:
                    on_unreadable(unread)
                for each in found:
                    yield each
                await asyncio.sleep(0)
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)


class _Pages:
    """Requests the pages of a list, each of them several times if need be, so that the list need not start over."""

    def __init__(
        self, cluster: Cluster, kind: Kind[Any], namespace: str | None, pause: float, *, fields: str, most: int
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._namespace = namespace
        self._pause = pause
        self._query = {"fieldSelector": fields}
        self._most = most

    async def page(self, token: str, limit: int) -> Page:
        """The page of the token, with up to `limit` objects."""
        for _ in range(_TRIES - 1):
            try:
                return await self._request(token, limit)
            except TooLong:
                return await self.page(token, max(limit // 4, _SMALLEST))
            except Unavailable as error:
                extra = {"kind": self._kind.kind, "limit": limit, "error": str(error)}
                logger.warning("page cannot be listed; trying again", extra=extra)
                await asyncio.sleep(self._pause)
                limit = max(limit // 2, _SMALLEST)
        return await self._request(token, limit)

    async def _request(self, token: str, limit: int) -> Page:
        most = self._most if limit > _SMALLEST else None
        return await self._cluster.raw_page(
            self._kind, self._namespace, limit=limit, token=token, query=self._query, most=most
        )


def _limit(page: Page, octets: int) -> int:
    """The number of objects of the next page, judging by the length of this one."""
    return max(_SMALLEST, min(_LARGEST, octets * len(page.items) // page.octets))
