"""The scripted ACME server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.scripted_acme import ScriptedAcme, running_acme


@pytest.fixture
async def acme() -> AsyncIterator[ScriptedAcme]:
    async with running_acme() as server:
        yield server
