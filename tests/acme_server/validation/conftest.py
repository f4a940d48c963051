"""The nameserver that validators ask."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.nameserver import NameServer, running_nameserver


@pytest.fixture
async def nameserver() -> AsyncIterator[NameServer]:
    """It knows one host, web.example.com, at the loopback address."""
    async with running_nameserver() as server:
        server.records["web.example.com", "A"] = ["127.0.0.1"]
        yield server
