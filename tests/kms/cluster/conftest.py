"""The fake API server and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kms.cluster.client import Cluster
from tests.support.apiserver import FakeApiServer, running_api


@pytest.fixture
async def api() -> AsyncIterator[FakeApiServer]:
    async with running_api() as api:
        yield api


@pytest.fixture
async def cluster(api: FakeApiServer) -> Cluster:
    return await api.cluster()
