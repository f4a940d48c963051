"""The watches and lists of a server of the domain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.domain import World
from tests.support.eventually import until


@asynccontextmanager
async def watching(world: World) -> AsyncIterator[None]:
    """Run all watches and lists of the server; the block begins when it has read everything."""
    state = world.services.state
    tasks = [asyncio.create_task(work()) for work in state.works.values()]
    await until(lambda: all(condition() for condition in state.conditions.values()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
