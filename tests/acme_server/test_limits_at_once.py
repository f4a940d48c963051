"""How exact limits are when requests come at once: at one server exact, at several by what each of them knows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.support.acme import ClientKey
from tests.support.server import Answer, Server, running_server

pytestmark = pytest.mark.requirement("SEC38", "SEC62")
AT_ONCE = 10
MOST = 3


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server of a slow API server, with three orders and three accounts for each profile."""
    async with running_server(lambda world: world.configure(maximum_orders=MOST, maximum_accounts=MOST)) as running:
        await running.register()
        running.world.api.fail_next("create", "*", 200, times=1_000, delay=0.02)
        yield running


def outcomes(answers: Sequence[Answer]) -> dict[tuple[int, str], int]:
    return Counter((each.status, each.problem["type"] if each.status != 201 else "") for each in answers)


async def test_orders_at_one_server_end_at_the_limit(server: Server) -> None:
    answers = await asyncio.gather(*(server.order(f"host-{number}.example.com") for number in range(AT_ONCE)))
    assert outcomes(answers) == {(201, ""): MOST, (503, "rateLimited"): AT_ONCE - MOST}


async def test_accounts_at_one_server_end_at_the_limit(server: Server) -> None:
    answers = await asyncio.gather(*(server.register(ClientKey()) for _ in range(AT_ONCE)))
    assert outcomes(answers) == {(201, ""): MOST - 1, (503, "rateLimited"): AT_ONCE - MOST + 1}


async def test_servers_that_have_not_heard_of_each_other_allow_the_limit_once_each(
    server: Server, other: Server
) -> None:
    """No watch tells them: no number of requests gets more out of them."""
    servers = server, other
    orders = await asyncio.gather(*(servers[number % 2].order(f"h{number}.example.com") for number in range(20)))
    assert outcomes(orders)[201, ""] == 2 * MOST
    accounts = await asyncio.gather(*(servers[number % 2].register(ClientKey()) for number in range(20)))
    assert outcomes(accounts)[201, ""] <= 2 * MOST
