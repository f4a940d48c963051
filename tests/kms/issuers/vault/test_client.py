"""Connections to a server of Vault that is not what it should be, and those that are closed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from kms.issuers.vault import Unreachable, VaultClient, VaultSession
from kms.issuers.vault.credentials import Credentials
from kms.resources.authorities import VaultServer
from tests.support.openbao import TOKEN_AUTH

MEGABYTE = 2**20


@asynccontextmanager
async def answering(body: bytes, **headers: str) -> AsyncIterator[tuple[VaultServer, list[str]]]:
    """A server that answers everything in this way, and the paths that it was asked for."""
    seen: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        return web.Response(body=body, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield VaultServer(server=f"http://127.0.0.1:{runner.addresses[0][1]}", auth=TOKEN_AUTH), seen
    finally:
        await runner.cleanup()


@pytest.mark.requirement("X20")
async def test_a_compressed_answer_is_not_unpacked() -> None:
    packed = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    bomb = packed.compress(bytes(64 * MEGABYTE)) + packed.flush()
    assert len(bomb) < MEGABYTE, "it passes the limit of an answer"
    async with answering(bomb, **{"Content-Encoding": "gzip"}) as (server, _):
        client = VaultClient(server)
        try:
            with pytest.raises(Unreachable, match="the answer is not that of Vault or OpenBao"):
                await client.call("GET", "sys/health", token="token")
        finally:
            await client.close()


@pytest.mark.requirement("X20", "X21")
async def test_a_client_that_is_closed_opens_no_connection() -> None:
    async with answering(b"{}") as (server, seen):
        client = VaultClient(server)
        await client.call("GET", "sys/health")
        await client.close()
        with pytest.raises(Unreachable) as late:
            await client.call("GET", "sys/health")
        assert (len(seen), late.value.is_ambiguous) == (1, False)
        session = VaultSession(server, lambda: Credentials(token="token"))
        await session.close()
        with pytest.raises(Unreachable):
            await session.call("GET", "sys/health")
        await session.close()
        assert len(seen) == 1


@pytest.mark.requirement("X20")
async def test_a_client_that_is_closed_while_it_connects_leaves_nothing_open() -> None:
    async with answering(b"{}") as (server, seen):
        client = VaultClient(server)
        call = asyncio.create_task(client.call("GET", "sys/health"))
        await asyncio.sleep(0)  # it reads the certificates in a thread
        await client.close()
        with pytest.raises(Unreachable):
            await call
        assert seen == []
