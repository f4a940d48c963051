"""The worlds and servers that most tests need. A module with a world of its own overrides them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from kms.resources.accounts import ACMEAccount
from tests.support.domain import World, running_world
from tests.support.server import Server, running_replica, running_server


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as world:
        yield world


@pytest.fixture
async def account(world: World) -> ACMEAccount:
    return await world.account()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server whose client has an account."""
    async with running_server() as running:
        await running.register()
        yield running


@pytest.fixture
async def other(server: Server) -> AsyncIterator[Server]:
    """A second replica on the same cluster. No watch updates its caches."""
    server.world.sole_writer = False
    world = server.world.another()
    async with running_replica(world, server.nonces) as replica:
        yield replace(replica, key=server.key, kid=server.kid)
    await world.services.worker.drain(1)
