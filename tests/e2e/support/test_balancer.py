"""The balancer, before servers that only say who they are."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp import web

from e2e.cluster.ports import LOOPBACK
from e2e.load.processes import family, read_stats
from e2e.support.balancer import balancing, running_balancer
from tests.support.eventually import until


class At(NamedTuple):
    """Where a server should be."""

    port: int
    metrics_port: int


class Speaker:
    """Answers each connection with its number; ready or not as it is told."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = True
        self.port = self.metrics_port = 0

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readline()
        writer.write(b"%d %s" % (self.number, asked))
        await writer.drain()
        writer.close()

    async def tell(self, _request: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503)


@asynccontextmanager
async def speaking(*numbers: int) -> AsyncIterator[list[Speaker]]:
    async with AsyncExitStack() as stack:
        speakers = [Speaker(number) for number in numbers]
        for each in speakers:
            server = await stack.enter_async_context(await asyncio.start_server(each.speak, LOOPBACK, 0))
            each.port = server.sockets[0].getsockname()[1]
            application = web.Application()
            application.add_routes([web.get("/readyz", each.tell)])
            runner = web.AppRunner(application)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, LOOPBACK, 0)
            await site.start()
            each.metrics_port = runner.addresses[0][1]
        yield speakers


async def asked(address: str) -> bytes:
    """What comes back on a connection of its own; nothing where it is closed at once."""
    reader, writer = await asyncio.open_connection(LOOPBACK, int(address.rpartition(":")[2]))
    writer.write(b"hello\n")
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_each_connection_goes_to_the_next_server() -> None:
    async with speaking(1, 2, 3) as speakers, balancing(speakers) as (balancer, address):
        answers = Counter([await asked(address) for _ in range(6)])
    assert answers == {b"1 hello\n": 2, b"2 hello\n": 2, b"3 hello\n": 2}
    assert balancer.accepted == 6


async def test_nothing_goes_to_a_server_that_is_not_ready() -> None:
    async with speaking(1, 2) as speakers, balancing(speakers) as (balancer, address):
        speakers[0].ready = False
        await until(lambda: not balancer.serves(speakers[0]))
        assert {await asked(address) for _ in range(4)} == {b"2 hello\n"}
        speakers[1].ready = False
        await until(lambda: not balancer.serves(speakers[1]))
        assert await asked(address) == b""
        speakers[0].ready = True
        await until(lambda: balancer.serves(speakers[0]))
        assert await asked(address) == b"1 hello\n"


async def test_a_client_of_a_server_that_is_gone_meets_the_end_of_its_connection() -> None:
    async with speaking(1) as (speaker,), balancing([At(1, speaker.metrics_port)]) as (_, address):
        assert await asked(address) == b""


async def test_it_can_be_a_process_of_its_own(tmp_path: Path) -> None:
    async with speaking(1, 2) as speakers:
        with running_balancer(speakers, log=tmp_path / "log") as (address, guard):
            assert family(guard, read_stats()) > {guard}
            assert os.getpid() not in family(guard, read_stats())
            assert {await asked(address) for _ in range(4)} == {b"1 hello\n", b"2 hello\n"}


def test_one_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="invalid literal"), running_balancer([At("none", 1)], log=tmp_path / "log"):  # type: ignore[arg-type]
        pass
