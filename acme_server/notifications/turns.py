"""Long loops that let others have their turn on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


async def in_turns(items: Iterable[T], *, turn: int) -> AsyncIterator[T]:
    """The items, with a pause after every `turn` of them. The collection must not change meanwhile."""
    iterator = iter(items)
    while batch := tuple(islice(iterator, turn)):
        for each in batch:
            yield each
        await asyncio.sleep(0)
