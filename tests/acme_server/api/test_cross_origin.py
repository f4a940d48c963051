"""What pages of other origins may read and ask in a browser."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import TestClient, TestServer

from acme_server.api.application import internal_application, plain_application
from acme_server.replicas import Replicas
from kms.clock import system_entropy
from tests.support.server import Server, client_of

ORIGIN = {"Origin": "https://app.example.net"}
ASKING = ORIGIN | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
ALLOWED = "Access-Control-Allow-"


def cross_origin(headers: object) -> list[str]:
    return [name for name in headers if name.lower().startswith("access-control")]  # type: ignore[attr-defined]


@pytest.mark.requirement("S3", "P12")
async def test_a_page_of_any_origin_may_read_every_answer_of_a_directory(server: Server) -> None:
    answers = [
        await server.get(f"{server.base}/directory", **ORIGIN),
        await server.get(f"{server.base}/new-nonce", "HEAD", **ORIGIN),
        await server.get(f"{server.base}/renewal-info/AA.AA", **ORIGIN),
        await server.get(f"{server.base}/none", **ORIGIN),
        await server.get(f"{server.base}/new-order", **ORIGIN),
        await server.order("www.example.org"),
        await server.order("www.example.com"),
        await server.post(f"{server.base}/new-order", {}, nonce="none"),
    ]
    assert [each.status for each in answers] == [200, 200, 400, 404, 405, 403, 201, 400]
    for each in answers:
        assert each.headers["Access-Control-Allow-Origin"] == "*"
        assert each.headers["Access-Control-Expose-Headers"] == "Link, Location, Replay-Nonce, Retry-After"
        assert "Access-Control-Allow-Credentials" not in each.headers
        assert "Set-Cookie" not in each.headers


@pytest.mark.requirement("S3", "P12")
async def test_a_preflight_allows_signed_requests_and_nothing_else(server: Server) -> None:
    answer = await server.get(f"{server.base}/new-order", "OPTIONS", **ASKING)
    assert (answer.status, answer.text) == (204, "")
    assert {name: value for name, value in answer.headers.items() if name.startswith(ALLOWED)} == {
        "Access-Control-Allow-Methods": "POST",
        "Access-Control-Allow-Headers": "Content-Type",
        "Access-Control-Allow-Origin": "*",
    }
    directory = await server.get(f"{server.base}/directory", "OPTIONS", **ASKING)
    assert directory.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST"
    assert b'requests_total{method="other",route="none",status="204"} 2.0' in server.metrics.exposition()
    assert (await server.get(f"{server.base}/new-order", "OPTIONS", **ORIGIN)).status == 405
    assert (await server.get(f"{server.base}/none", "OPTIONS", **ASKING)).status == 404
    assert (await server.get(f"{server.base}/new-order", "PUT", **ORIGIN)).status == 405


@pytest.mark.requirement("S3", "P12")
async def test_nothing_else_of_the_server_is_opened(server: Server) -> None:
    for method in ("GET", "OPTIONS"):
        for path in ("/", "/crl/pki/ca.crl", "/ca/pki/ca.crt", "/healthz", "/readyz"):
            answer = await server.http.request(method, path, headers=ASKING)
            assert cross_origin(answer.headers) == []
    plain = plain_application(server.context)
    replicas = Replicas(
        nonces=server.nonces, slices=None, session=None, clock=server.world.clock, entropy=system_entropy
    )
    internal = internal_application(replicas=replicas, metrics=server.metrics, readiness=server.readiness)
    for client, path in ((client_of(plain), "/crl/pki/ca.crl"), (TestClient(TestServer(internal)), "/metrics")):
        async with client:
            for method in ("GET", "OPTIONS"):
                assert cross_origin((await client.request(method, path, headers=ASKING)).headers) == []
