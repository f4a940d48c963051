"""What certificates point to, over HTTP: media types, caching, HEAD, 304, and readers that take their time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import parsedate_to_datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from acme_server.api.crl import Slices
from acme_server.certificates.crl import DERFile
from tests.support.acme import NOW
from tests.support.eventually import until
from tests.support.server import Server, running_server

LIST, CERTIFICATE = "/crl/pki/ca.crl", "/ca/pki/ca.crt"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        running.world.services.state.order_index.mark_complete()
        yield running


@pytest.fixture
def long(server: Server, monkeypatch: pytest.MonkeyPatch) -> DERFile:
    """What is served as the CRL: more than fits into one slice."""
    document = DERFile.of(bytes(range(256)) * 20_000, last_modified=NOW)

    async def current(*_: str) -> DERFile:
        return document

    monkeypatch.setattr(server.world.services.crls, "current", current)
    return document


async def read(server: Server, path: str) -> DERFile:
    crls = server.world.services.crls
    return await crls.current("pki", "ca") if path == LIST else crls.ca_certificate("pki", "ca")


@pytest.mark.parametrize(
    ("path", "type_", "age"), [(LIST, "application/pkix-crl", 3), (CERTIFICATE, "application/pkix-cert", 300)]
)
async def test_a_document_says_what_it_is_and_how_long_it_may_be_kept(
    server: Server, path: str, type_: str, age: int
) -> None:
    answer = await server.http.get(path)
    served = await read(server, path)
    assert (answer.status, await answer.read()) == (200, served.der)
    assert answer.headers["Content-Type"] == type_
    assert answer.headers["Cache-Control"] == f"public, max-age={age}"
    assert answer.headers["ETag"] == f'"{served.etag}"'
    assert parsedate_to_datetime(answer.headers["Last-Modified"]) == served.last_modified
    lasting = parsedate_to_datetime(answer.headers["Expires"]) - parsedate_to_datetime(answer.headers["Date"])
    assert timedelta(seconds=age - 1) <= lasting <= timedelta(seconds=age + 1)
    assert "Replay-Nonce" not in answer.headers


@pytest.mark.parametrize("path", [LIST, CERTIFICATE])
async def test_head_says_the_same_without_the_document(server: Server, path: str) -> None:
    got, headed = await server.http.get(path), await server.http.head(path)
    assert (headed.status, await headed.read()) == (200, b"")
    for name in ("Content-Length", "Content-Type", "ETag", "Cache-Control", "Last-Modified"):
        assert headed.headers[name] == got.headers[name]


@pytest.mark.parametrize("known", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
async def test_who_has_the_document_is_told_that_it_is_still_so(server: Server, known: str) -> None:
    served = await read(server, LIST)
    answer = await server.http.get(LIST, headers={"If-None-Match": known.format(served.etag)})
    assert (answer.status, await answer.read()) == (304, b"")
    assert answer.headers["ETag"] == f'"{served.etag}"'
    assert answer.headers["Cache-Control"] == "public, max-age=3"


@pytest.mark.parametrize("known", ['"other"', "", "nonsense"])
async def test_who_has_another_gets_the_document(server: Server, known: str) -> None:
    answer = await server.http.get(LIST, headers={"If-None-Match": known})
    assert (answer.status, await answer.read()) == (200, (await read(server, LIST)).der)


async def test_the_date_alone_tells_nobody_that_a_list_is_still_so(server: Server) -> None:
    since = (await server.http.get(LIST)).headers["Last-Modified"]
    assert (await server.http.get(LIST, headers={"If-Modified-Since": since})).status == 200


async def test_a_long_document_arrives_as_a_whole(server: Server, long: DERFile) -> None:
    assert (await server.http.head(LIST)).headers["Content-Length"] == str(len(long.der))
    answer = await server.http.get(LIST)
    assert answer.headers["Content-Length"] == str(len(long.der))
    assert await answer.read() == long.der


@pytest.mark.parametrize("path", ["/crl/pki/other.crl", "/ca/pki/other.crt"])
async def test_what_is_not_there_is_a_problem(server: Server, path: str) -> None:
    answer = await server.get(path)
    assert (answer.status, answer.problem["type"]) == (404, "malformed")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_documents_are_only_read(server: Server, method: str) -> None:
    answer = await server.http.request(method, LIST)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


@pytest.mark.requirement("SEC39")
async def test_a_reader_who_takes_too_long_loses_the_connection_and_holds_no_copy() -> None:
    size = 50_000_000
    sent: list[Slices] = []

    async def handler(_: web.Request) -> web.Response:
        sent.append(Slices(bytes(size), grace=0.2 - size / 50_000))
        return web.Response(body=sent[0])

    application = web.Application()
    application.router.add_get("/", handler)
    async with TestClient(TestServer(application)) as http:
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await reader.readline()
        server = http.server.handler
        assert server is not None
        await until(lambda: not server.connections)  # nothing is read meanwhile
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(size)
        writer.close()
