"""What all tests of the operator need."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.world import World, world


@pytest.fixture(autouse=True, scope="module")
def _workers_that_kopf_dropped() -> Iterator[None]:
    """Collect them here, where their warnings are ignored: code that hypothesis evaluates cannot give any."""
    yield
    gc.collect()


@pytest.fixture
async def running() -> AsyncIterator[World]:
    """An operator that has reconciled everything once."""
    async with world() as one:
        await one.reconcile_all()
        one.api.requests.clear()
        yield one
