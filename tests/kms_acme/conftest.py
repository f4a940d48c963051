"""What several commands and the console are shown."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.apiserver import FakeApiServer, running_api
from tests.support.shown_cluster import fill


@pytest.fixture
async def api() -> AsyncIterator[FakeApiServer]:
    """An API server with orders that went well and badly, and all that belongs to them."""
    async with running_api() as api:
        fill(api)
        yield api
