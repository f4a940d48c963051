import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import generate_latest

from acme_server.api import authentication
from acme_server.api.authentication import MAXIMUM_BODY
from kms.cluster import errors
from tests.support.acme import EXTERNAL_URL, Edge, binding, problem_of, running_edge
from tests.support.eventually import until

NEW_ORDER = "/acme/pki/web/new-order"
PAYLOAD = {"identifiers": [{"type": "dns", "value": "a.example.com"}]}


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge() as running:
        yield running


@pytest.mark.requirement("SEC46")
async def test_an_unexpected_error_is_told_to_the_log_and_not_to_the_client(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.orders.fails = RuntimeError("the inside of the server")
    answer = await edge.post(NEW_ORDER, PAYLOAD)
    assert await problem_of(answer) == {
        "type": "serverInternal",
        "detail": "Something went wrong in the server.",
        "status": 500,
    }
    assert "the inside of the server" in caplog.text
    assert edge.nonces.redeem(edge.nonces.read(answer.headers["Replay-Nonce"]))


@pytest.mark.requirement("S41", "C6")
@pytest.mark.parametrize(("asked", "told"), [(None, "2"), (0.2, "1"), (3.5, "4"), (60, "60")])
async def test_without_the_api_server_clients_are_asked_to_come_again(
    edge: Edge, asked: float | None, told: str
) -> None:
    edge.orders.fails = errors.Unavailable("connection refused to 10.0.0.1", asked)
    answer = await edge.post(NEW_ORDER, PAYLOAD)
    assert (answer.status, answer.headers["Retry-After"]) == (503, told)
    assert "10.0.0.1" not in await answer.text()


@pytest.mark.requirement("SEC36")
async def test_a_long_body_is_refused_when_it_is_announced(edge: Edge) -> None:
    answer = await edge.post(NEW_ORDER, body=b"x" * (MAXIMUM_BODY + 1))
    assert (answer.status, (await problem_of(answer))["type"]) == (413, "malformed")


@pytest.mark.requirement("SEC36")
async def test_a_long_body_is_refused_while_it_is_read(edge: Edge) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAXIMUM_BODY // 1024 + 2):
            yield b"x" * 1024

    answer = await edge.http.post(NEW_ORDER, data=chunks(), headers={"Content-Type": "application/jose+json"})
    assert (answer.status, (await problem_of(answer))["type"]) == (413, "malformed")


async def test_a_body_as_long_as_allowed_is_read(edge: Edge) -> None:
    answer = await edge.post(NEW_ORDER, body=b"x" * MAXIMUM_BODY)
    assert answer.status == 400


@pytest.mark.requirement("SEC39")
async def test_a_body_that_does_not_come_is_not_waited_for(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_BODY_DEADLINE", 0.05)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(2)

    answer = await edge.http.post(NEW_ORDER, data=slowly(), headers={"Content-Type": "application/jose+json"})
    assert (answer.status, (await problem_of(answer))["type"]) == (408, "malformed")


@pytest.mark.parametrize("end", ["eof", "garbage"])
async def test_a_body_that_breaks_off_is_no_error_of_the_server(
    edge: Edge, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="acme_server")
    # The test server cancels handlers whose client has gone; the real one does not.
    runner = web.AppRunner(edge.http.app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write(
        f"POST {NEW_ORDER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/jose+json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n".encode()
    )
    await asyncio.sleep(0.05)
    writer.write(b"zz\r\n" if end == "garbage" else b"")
    await asyncio.sleep(0.05)
    writer.close()
    await until(lambda: "request refused" in caplog.text)
    assert "unexpected" not in caplog.text
    reader.feed_eof()
    await runner.cleanup()


@pytest.mark.requirement("S43", "SEC46")
async def test_an_error_of_the_framework_is_answered_without_details(edge: Edge) -> None:
    edge.orders.fails = web.HTTPBadGateway(text="inside")
    answer = await edge.post(NEW_ORDER, PAYLOAD)
    assert await problem_of(answer) == {"type": "serverInternal", "detail": "Bad Gateway", "status": 502}


@pytest.mark.requirement("M23")
@pytest.mark.parametrize("media_type", ["application/jose+json; charset=utf-8", "Application/JOSE+JSON"])
async def test_the_media_type_may_have_parameters_and_capitals(edge: Edge, media_type: str) -> None:
    answer = await edge.http.post(NEW_ORDER, data=b"{}", headers={"Content-Type": media_type})
    assert answer.status == 400


@pytest.mark.requirement("SEC36")
async def test_a_compressed_body_is_not_unpacked(edge: Edge) -> None:
    headers = {"Content-Type": "application/jose+json", "Content-Encoding": "identity"}
    assert (await edge.http.post(NEW_ORDER, data=b"\x1f\x8b", headers=headers)).status == 400


@pytest.mark.requirement("S43")
@pytest.mark.parametrize("path", ["/nothing", "/acme", "/acme/pki/web", "/metrics", "/acme/pki/web/nowhere"])
async def test_what_is_not_there_is_a_problem_document(edge: Edge, path: str) -> None:
    answer = await edge.http.get(path)
    assert (answer.status, (await problem_of(answer))["detail"]) == (404, "There is no such resource.")


@pytest.mark.requirement("SEC63")
async def test_one_line_a_request_says_who_did_what(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="acme_server")
    await edge.post(NEW_ORDER, PAYLOAD)
    (line,) = [each for each in caplog.records if each.getMessage() == "request"]
    fields = vars(line)
    assert (fields["method"], fields["status"], fields["client"]) == ("POST", 201, "127.0.0.1")
    assert fields["route"] == "/acme/{namespace}/{profile}/new-order"
    assert fields["account"] == next(iter(edge.accounts.known))[1]
    assert fields["ms"] >= 0


@pytest.mark.requirement("SEC63")
async def test_one_line_a_refusal_says_why(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="acme_server")
    await edge.post(NEW_ORDER, {})
    (line,) = [each for each in caplog.records if each.getMessage() == "request refused"]
    fields = vars(line)
    assert (fields["outcome"], fields["profile"]) == ("malformed", "pki/web")
    assert "identifiers" in fields["detail"]


@pytest.mark.requirement("SEC64")
async def test_no_secret_is_in_the_log(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"{EXTERNAL_URL}/acme/pki/web/new-account"
    eab = binding(edge.key, url=url)
    nonce = edge.nonces.issue()
    await edge.post("/acme/pki/web/new-account", {"externalAccountBinding": eab}, jwk=edge.key.jwk, nonce=nonce)
    await edge.post(NEW_ORDER, PAYLOAD, nonce=nonce)
    await edge.post("/acme/pki/web/orders/" + "a" * 32 + "/finalize", {"csr": "c2VjcmV0"})
    lines = json.dumps([{**vars(each), "args": None} for each in caplog.records], default=str)
    for secret in (eab["signature"], eab["protected"], nonce, edge.key.jwk["x"], "c2VjcmV0", "n" * 32):
        assert secret not in lines


@pytest.mark.requirement("SEC64")
async def test_requests_are_counted_by_template_and_status(edge: Edge) -> None:
    await edge.post(NEW_ORDER, PAYLOAD)
    await edge.post("/acme/pki/web/orders/" + "a" * 32)
    await edge.http.get("/acme/../../etc/passwd")
    await edge.http.request("PROPFIND", "/nothing/at/all")
    text = generate_latest(edge.metrics.registry).decode()

    def counted(route: str, method: str, status: int) -> Any:
        return f'kms_acme_requests_total{{method="{method}",route="{route}",status="{status}"}} 1.0' in text

    assert counted("/acme/{namespace}/{profile}/new-order", "POST", 201)
    assert counted("/acme/{namespace}/{profile}/orders/{order}", "POST", 404)
    assert counted("none", "other", 404)
    assert "passwd" not in text
    assert "a" * 32 not in text


async def test_no_answer_tells_which_library_serves_it(edge: Edge) -> None:
    refused, missing = await edge.post(NEW_ORDER, {"identifiers": []}), await edge.post("/nothing", {})
    assert {each.headers["Server"] for each in (refused, missing)} == {"kms-acme"}
