"""All objects of a kind, however many: never all of them in memory, and others have their turn meanwhile.

An API server goes through all the objects that are left for every page that it makes, so few long pages cost it less
than many short ones; and while one page is gone through here, it makes the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from kms.cluster.client import Cluster
from kms.cluster.codec import Page, readable
from kms.cluster.errors import Unavailable
from kms.resources.kinds import Kind
from kms.resources.meta import Resource

T = TypeVar("T", bound=Resource)

_FIRST, _SMALLEST, _LARGEST = 500, 50, 2_000
"""Objects of a page."""
_OCTETS = 8_000_000
"""Length of a page, about: it is in memory as a whole, and should come well within a call's deadline."""
_BATCH = 100
"""Objects that are decoded and gone through at once: a few milliseconds."""
_TRIES = 4

logger = logging.getLogger(__name__)


async def list_all(
    cluster: Cluster, kind: Kind[T], namespace: str | None = None, *, pause: float = 5.0
) -> AsyncGenerator[T, None]:
    """All objects as they were together, in one namespace or (None) everywhere.

    Objects that do not fit their model are logged and left out. A page that the API server does not deliver is asked
    for again after `pause` seconds, and for half as much.

    Raises what `Cluster.page` does: Unavailable where a page did not come after four attempts, Gone where all of it
    took longer than the API server keeps a snapshot.
    """
    pages = _Pages(cluster, kind, namespace, pause)
    upcoming: asyncio.Task[Page] | None = asyncio.create_task(pages.page("", _FIRST))
    try:
        while upcoming is not None:
            page, upcoming = await upcoming, None
            if page.continue_token:
                upcoming = asyncio.create_task(pages.page(page.continue_token, _limit(page)))
            for first in range(0, len(page.items), _BATCH):
                for each in readable(kind, page.items[first : first + _BATCH]):
                    yield each
                await asyncio.sleep(0)
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)


class _Pages:
    """The pages of a list. Where the API server stumbles once in a hundred thousand objects, it need not begin anew."""

    def __init__(self, cluster: Cluster, kind: Kind[Any], namespace: str | None, pause: float) -> None:
        self._cluster = cluster
        self._kind = kind
        self._namespace = namespace
        self._pause = pause

    async def page(self, token: str, limit: int) -> Page:
        """The page that the token leads to, of so many objects or fewer."""
        for _ in range(_TRIES - 1):
            try:
                return await self._asked(token, limit)
            except Unavailable as error:
                extra = {"kind": self._kind.kind, "limit": limit, "error": str(error)}
                logger.warning("a page could not be listed", extra=extra)
                await asyncio.sleep(self._pause)
                limit = max(limit // 2, _SMALLEST)
        return await self._asked(token, limit)

    async def _asked(self, token: str, limit: int) -> Page:
        return await self._cluster.raw_page(self._kind, self._namespace, limit=limit, token=token)


def _limit(page: Page) -> int:
    """How many objects the page after this one may have, to be no longer than a page should be."""
    return max(_SMALLEST, min(_LARGEST, _OCTETS * len(page.items) // page.octets))
