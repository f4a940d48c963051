"""Three servers behind a balancer that sends each connection to the next one: whatever ends, no client has to know.

SEC27, SEC34, SEC35, SEC56. KMS_ACME_E2E_ORDERS says how many orders go through the crashes (30; `make soak`: 1000),
KMS_ACME_E2E_SEED repeats the moments of the kills, as far as a machine with other things to do repeats anything.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from cryptography import x509

from e2e.load.client import Client
from e2e.support.balancer import Balancer, balancing
from e2e.support.enrollment import Enrollment
from e2e.support.programs import Server
from tests.support.eventually import becomes
from tests.support.installation import Installation
from tests.support.retrying import ordered

pytestmark = pytest.mark.chance

ORDERS = int(os.environ.get("KMS_ACME_E2E_ORDERS", "30"))
IN_FLIGHT = min(32, ORDERS // 4)
PATIENCE = 300.0
"""Seconds that one order may take, with all that happens to it on its way. cert-manager would wait for ever."""
RECOVERED = 60.0
CLIENTS = 4
PAUSE = 0.5
"""Seconds between two orders of a client: programs that start need the processor, too."""


@pytest.fixture(scope="module")
def three(installation: Installation) -> Iterator[tuple[Server, ...]]:
    """Servers that know of each other."""
    try:
        with installation.replicas(3) as started:
            yield started
    finally:
        # Watches may wait for half a minute before they try again; the tests of other modules need not.
        installation.programs.restart()


@asynccontextmanager
async def clients_of(
    installation: Installation, enrollment: Enrollment, address: str, count: int
) -> AsyncIterator[list[Client]]:
    """Clients with an account, nonces and connections of their own each."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(installation.client(enrollment, servers=[address])) for _ in range(count)
        ]


@pytest.mark.requirement("SEC27", "SEC34", "SEC35")
async def test_no_order_is_lost_while_servers_are_killed_and_the_api_server_is_restarted(
    installation: Installation, three: tuple[Server, ...], team: str, chance: random.Random
) -> None:
    enrollment, met = installation.open_profile(team), Counter[str]()
    numbers, chains = itertools.count(), dict[str, str]()
    over = asyncio.Event()

    async def ordering(client: Client) -> None:
        while (number := next(numbers)) < ORDERS or not over.is_set():
            async with asyncio.timeout(PATIENCE):
                url, chain = await ordered(client, f"o{number}.test", installation.answerer.add, met)
            chains[url] = chain
            await asyncio.sleep(chance.uniform(1.0, 4.0))  # programs that start need the processor, too

    async def disturbing(balancer: Balancer) -> None:
        async def somebody_serves() -> bool:
            return any(map(balancer.serves, three))

        try:
            for step in range(max(4, ORDERS // 30)):
                await asyncio.sleep(chance.uniform(0.5, 3.0))
                # Where all are killed faster than one can start, nobody could serve, however good he is.
                await becomes(somebody_serves, seconds=RECOVERED)
                if step == 2:
                    await asyncio.to_thread(installation.cluster.stop_apiserver)
                    await asyncio.to_thread(installation.cluster.start_apiserver)
                victim = chance.choice(three)
                await asyncio.to_thread(victim.kill)
                await asyncio.to_thread(victim.start)
        finally:
            over.set()

    async with (
        balancing(three) as (balancer, address),
        clients_of(installation, enrollment, address, IN_FLIGHT) as clients,
    ):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(disturbing(balancer))
            for each in clients:
                tasks.create_task(ordering(each))
        for each in clients:
            met += each.counts
    print(f"{len(chains)} orders; met on the way: {dict(met)}")
    assert len(chains) >= ORDERS
    stored = {each["metadata"]["name"]: each["status"] for each in installation.objects("acmeorders", team)}
    issued = installation.certificates(team)
    # What the clients have is what is recorded, and nothing that nobody got was issued besides.
    assert issued == {url.rpartition("/")[2]: chain for url, chain in chains.items()}
    serials = {x509.load_pem_x509_certificate(each.encode()).serial_number for each in issued.values()}
    assert len(serials) == len(issued)
    assert not [status for status in stored.values() if status.get("state") in {"invalid", "processing"}]
    for server in three:
        await asyncio.to_thread(server.wait_until_ready, RECOVERED)


@pytest.mark.requirement("SEC20")
async def test_a_rolling_restart_under_load_is_not_noticed(
    installation: Installation, three: tuple[Server, ...], team: str
) -> None:
    """Not even by a client that repeats nothing: only nonces go with the server that issued them (SEC20)."""
    enrollment, numbers, finished = installation.open_profile(team), itertools.count(), Counter[str]()
    over = asyncio.Event()

    async def ordering(client: Client) -> None:
        while not over.is_set():
            await client.obtain([f"r{next(numbers)}.test"], installation.answerer.add)
            finished["orders"] += 1
            await asyncio.sleep(PAUSE)

    async with (
        balancing(three) as (balancer, address),
        clients_of(installation, enrollment, address, CLIENTS) as clients,
    ):
        async with asyncio.TaskGroup() as tasks:
            for each in clients:
                tasks.create_task(ordering(each))
            for server in three:
                await rolled(balancer, server)
            over.set()
        met = sum((each.counts for each in clients), Counter[str]())
    print(f"{finished['orders']} orders on {balancer.accepted} connections; met on the way: {dict(met)}")
    assert finished["orders"] >= CLIENTS
    assert met.keys() <= {"badNonce"}


async def rolled(balancer: Balancer, server: Server) -> None:
    """Stop a server and start it again, as a rollout does; it has clients again at the end."""
    assert await asyncio.to_thread(server.stop) == 0
    server.start()
    await asyncio.to_thread(server.wait_until_ready)

    async def serves() -> bool:
        return balancer.serves(server)

    await becomes(serves)
