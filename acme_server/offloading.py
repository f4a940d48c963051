"""Work on what clients send, done in a thread where it could hold the event loop up for long.

Handing over costs some 100 us, so what is usual stays where it is. What is not: hundreds of internationalised labels
take tens of milliseconds, since each of their characters is looked up (IDNA 2008).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

LIGHT = 2048
"""Octets or characters whose reading takes less than 10 ms at its worst."""

T = TypeVar("T")
P = TypeVar("P")


async def in_thread_if_large(work: Callable[[P], T], argument: P, *, size: int) -> T:
    """`work(argument)`, in a thread where `size` says that it may take long. Raises what `work` raises."""
    return work(argument) if size <= LIGHT else await asyncio.to_thread(work, argument)
