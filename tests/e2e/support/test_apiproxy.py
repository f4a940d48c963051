"""The proxy in front of an API server, asked by our own client of Kubernetes."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from e2e.support.apiproxy import Proxy, Refusal, serving
from kms.cluster.auth import Connection
from kms.cluster.client import Cluster
from kms.cluster.errors import Unavailable
from kms.resources.kinds import ACCOUNTS
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.eventually import in_background, until


@dataclass(frozen=True)
class Files:
    """A certificate for the loopback address, and who vouches for it."""

    authority: Path
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("pki")
    made = Files(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(made.authority)
    issued.cert_chain_pems[0].write_to_path(made.certificate)
    issued.private_key_pem.write_to_path(made.key)
    return made


@pytest.fixture
async def api() -> AsyncIterator[FakeApiServer]:
    async with running_api() as api:
        yield api


@asynccontextmanager
async def connected(port: int, files: Files) -> AsyncIterator[Cluster]:
    """A client that knows of the proxy only."""
    configuration = Configuration(host=f"https://127.0.0.1:{port}")
    configuration.ssl_ca_cert = str(files.authority)
    cluster = Cluster(Connection(configuration), deadline=5.0)
    try:
        yield cluster
    finally:
        await cluster.close()


@pytest.fixture
async def proxy(api: FakeApiServer, files: Files) -> Proxy:
    return Proxy(api.url, trust=files.authority, chance=itertools.cycle((0.9, 0.5, 0.1)).__next__)


@pytest.fixture
async def cluster(proxy: Proxy, files: Files) -> AsyncIterator[Cluster]:
    async with (
        proxy.listening(certificate=files.certificate, key=files.key, host="127.0.0.1") as port,
        connected(port, files) as cluster,
    ):
        yield cluster


async def test_requests_and_answers_go_through(api: FakeApiServer, proxy: Proxy, cluster: Cluster) -> None:
    created = await cluster.create(ACCOUNTS, account("a", "default"))
    assert await cluster.get(ACCOUNTS, "default", "a") == created == api.read(ACCOUNTS, "default", "a")
    assert [each.verb for each in api.requests] == ["create", "get"]
    assert (proxy.passed, proxy.refused.total()) == (2, 0)


async def test_a_request_gets_no_headers_on_the_way(files: Files) -> None:
    seen: list[set[str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append({name.lower() for name in request.headers})
        return web.json_response({})

    application = web.Application()
    application.router.add_get("/api", answer)
    tls = ssl.create_default_context(cafile=str(files.authority))
    async with TestServer(application) as upstream, aiohttp.ClientSession() as session:
        proxy = Proxy(str(upstream.make_url("/")), trust=files.authority, chance=lambda: 0.5)
        async with proxy.listening(certificate=files.certificate, key=files.key, host="127.0.0.1") as port:
            url = f"https://127.0.0.1:{port}/api"
            async with session.get(url, ssl=tls, headers={"Authorization": "Bearer a", "User-Agent": "b"}) as passed:
                assert passed.status == 200
    assert seen == [{"accept", "accept-encoding", "authorization", "host", "user-agent"}]


async def test_what_a_watch_says_comes_at_once(api: FakeApiServer, cluster: Cluster) -> None:
    version = await cluster.version(ACCOUNTS)
    async with aclosing(cluster.watch(ACCOUNTS, resource_version=version)) as events:
        first = asyncio.ensure_future(anext(events))
        await until(lambda: api.watching)
        created = await cluster.create(ACCOUNTS, account("a", "default"))
        async with asyncio.timeout(20):
            assert (await first).object == created


async def test_a_watch_that_nobody_reads_any_more_ends_at_the_api_server(
    api: FakeApiServer, proxy: Proxy, cluster: Cluster
) -> None:
    version = await cluster.version(ACCOUNTS)
    async with aclosing(cluster.watch(ACCOUNTS, resource_version=version)) as events, in_background(anext(events)):
        await until(lambda: api.watching)

    def has_ended() -> bool:
        api.send_bookmarks()  # the API server in memory learns of it when it has something to say
        return not api.watching

    await until(has_ended)


async def test_a_share_of_the_requests_is_refused_by_each_refusal_in_turn(
    api: FakeApiServer, proxy: Proxy, cluster: Cluster
) -> None:
    proxy.refuse(Refusal(429, retry_after=7), Refusal(503), share=0.4)
    met: list[float | str | None] = []
    for _ in range(6):
        try:
            await cluster.version(ACCOUNTS)
            met.append("passed")
        except Unavailable as error:
            met.append(error.retry_after)
    assert met == ["passed", "passed", 7.0, "passed", "passed", None]
    assert dict(proxy.refused) == {429: 1, 503: 1}
    assert len(api.requests) == 4, "what is refused does not get there"


async def test_a_refusal_may_be_long_in_coming(proxy: Proxy, cluster: Cluster) -> None:
    proxy.refuse(Refusal(504, after=0.3))
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="refused by the proxy"):
        await cluster.version(ACCOUNTS)
    assert time.monotonic() - begun >= 0.3


async def test_it_stops_refusing_when_it_is_told_so(proxy: Proxy, cluster: Cluster) -> None:
    proxy.refuse(Refusal(503))
    with pytest.raises(Unavailable, match="refused by the proxy"):
        await cluster.version(ACCOUNTS)
    proxy.refuse()
    assert await cluster.version(ACCOUNTS)


async def test_where_the_api_server_is_away_connections_end(api: FakeApiServer, proxy: Proxy, cluster: Cluster) -> None:
    await api.stop()
    with pytest.raises(Unavailable):
        await cluster.version(ACCOUNTS)
    await api.start()
    assert await cluster.version(ACCOUNTS)


def test_it_serves_beside_a_program_that_is_not_asynchronous(files: Files) -> None:
    proxy = Proxy("http://127.0.0.1:1", trust=files.authority, chance=lambda: 0.5)
    proxy.refuse(Refusal(429, retry_after=60))

    async def ask(port: int) -> None:
        async with connected(port, files) as cluster:
            await cluster.version(ACCOUNTS)

    with (
        serving(proxy, certificate=files.certificate, key=files.key) as port,
        pytest.raises(Unavailable, match="refused by the proxy"),
    ):
        asyncio.run(ask(port))
