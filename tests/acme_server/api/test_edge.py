import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn
from unittest.mock import Mock

import pytest
from aiohttp import web
from prometheus_client import generate_latest

from acme_server.api.application import acme_application
from acme_server.api.authentication import MAXIMUM_BODY
from acme_server.problems import Unavailable
from kms.cluster import errors
from tests.support.acme import EXTERNAL_URL, binding
from tests.support.eventually import until
from tests.support.server import ERROR, Server, running_server

NEW_ORDER = "/acme/pki/web/new-order"
PAYLOAD = {"identifiers": [{"type": "dns", "value": "a.example.com"}]}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server(body_deadline=0.1) as running:
        running.kid = running.opened()
        yield running


@pytest.fixture
def fail(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Makes newOrder raise an error."""

    def fail_with(error: Exception) -> None:
        async def create(*_: object) -> NoReturn:
            raise error

        monkeypatch.setattr(server.world.services.orders, "create", create)

    return fail_with


@pytest.mark.requirement("SEC46")
async def test_an_unexpected_error_is_told_to_the_log_and_not_to_the_client(
    server: Server, fail: Callable[[Exception], None], caplog: pytest.LogCaptureFixture
) -> None:
    fail(RuntimeError("the inside of the server"))
    answer = await server.post(NEW_ORDER, PAYLOAD)
    assert answer.problem == {
        "type": "serverInternal",
        "detail": "Something went wrong in the server.",
        "status": 500,
    }
    assert "the inside of the server" in caplog.text
    assert server.nonces.redeem(server.nonces.read(answer.headers["Replay-Nonce"]))


@pytest.mark.requirement("S41", "C6")
@pytest.mark.parametrize(("asked", "told"), [(None, "2"), (0.2, "1"), (3.5, "4"), (60, "60")])
async def test_without_the_api_server_clients_are_asked_to_come_again(
    server: Server, fail: Callable[[Exception], None], asked: float | None, told: str
) -> None:
    fail(errors.Unavailable("connection refused to 10.0.0.1", asked))
    answer = await server.post(NEW_ORDER, PAYLOAD)
    assert (answer.status, answer.headers["Retry-After"]) == (503, told)
    assert "10.0.0.1" not in answer.text


@pytest.mark.requirement("SEC36")
async def test_a_long_body_is_refused_when_it_is_announced(server: Server) -> None:
    answer = await server.post(NEW_ORDER, body=b"x" * (MAXIMUM_BODY + 1))
    assert (answer.status, answer.problem["type"]) == (413, "malformed")


@pytest.mark.requirement("SEC36")
async def test_a_long_body_is_refused_while_it_is_read(server: Server) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAXIMUM_BODY // 1024 + 2):
            yield b"x" * 1024

    answer = await server.http.post(NEW_ORDER, data=chunks(), headers={"Content-Type": "application/jose+json"})
    assert (answer.status, (await answer.json(content_type=None))["type"]) == (413, f"{ERROR}malformed")


@pytest.mark.requirement("SEC36")
async def test_a_long_body_is_refused_that_came_with_its_headers(server: Server) -> None:
    size = MAXIMUM_BODY + 1
    reader, writer = await asyncio.open_connection(server.http.host, server.http.port)
    writer.write(
        f"POST {NEW_ORDER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/jose+json\r\n"
        f"Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n{'x' * size}\r\n0\r\n\r\n".encode()
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_a_body_as_long_as_allowed_is_read(server: Server) -> None:
    answer = await server.post(NEW_ORDER, body=b"x" * MAXIMUM_BODY)
    assert answer.status == 400


@pytest.mark.requirement("SEC39")
async def test_a_body_that_does_not_come_is_not_waited_for(server: Server) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(2)

    answer = await server.http.post(NEW_ORDER, data=slowly(), headers={"Content-Type": "application/jose+json"})
    assert (answer.status, (await answer.json(content_type=None))["type"]) == (408, f"{ERROR}malformed")


@pytest.mark.parametrize("end", ["eof", "garbage"])
async def test_a_body_that_breaks_off_is_no_error_of_the_server(
    server: Server, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="acme_server")
    _, writer = await asyncio.open_connection(server.http.host, server.http.port)
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


async def test_a_client_that_goes_before_its_body_is_read_is_no_error_of_the_server(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="acme_server")
    connection = acme_application(server.context)()
    connection.connection_made(Mock(spec=asyncio.Transport))
    await asyncio.sleep(0)
    connection.data_received(
        f"POST {NEW_ORDER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/jose+json\r\n"
        "Content-Length: 20\r\n\r\n{".encode()
    )
    await asyncio.sleep(0)  # the request is being handled from the next turn of the loop on
    connection.connection_lost(None)
    await until(lambda: "request refused" in caplog.text or "unexpected" in caplog.text)
    assert "unexpected" not in caplog.text


@pytest.mark.requirement("S43", "SEC46")
async def test_an_error_of_the_framework_is_answered_without_details(
    server: Server, fail: Callable[[Exception], None]
) -> None:
    fail(web.HTTPBadGateway(text="inside"))
    answer = await server.post(NEW_ORDER, PAYLOAD)
    assert answer.problem == {"type": "serverInternal", "detail": "Bad Gateway", "status": 502}


@pytest.mark.requirement("M23")
@pytest.mark.parametrize("media_type", ["application/jose+json; charset=utf-8", "Application/JOSE+JSON"])
async def test_the_media_type_may_have_parameters_and_capitals(server: Server, media_type: str) -> None:
    answer = await server.http.post(NEW_ORDER, data=b"{}", headers={"Content-Type": media_type})
    assert answer.status == 400


@pytest.mark.requirement("SEC36")
async def test_a_compressed_body_is_not_unpacked(server: Server) -> None:
    headers = {"Content-Type": "application/jose+json", "Content-Encoding": "identity"}
    assert (await server.http.post(NEW_ORDER, data=b"\x1f\x8b", headers=headers)).status == 400


@pytest.mark.requirement("S43")
@pytest.mark.parametrize("path", ["/nothing", "/acme", "/acme/pki/web", "/metrics", "/acme/pki/web/nowhere"])
async def test_what_is_not_there_is_a_problem_document(server: Server, path: str) -> None:
    answer = await server.get(path)
    assert (answer.status, answer.problem["detail"]) == (404, "There is no such resource.")


@pytest.mark.requirement("SEC63")
async def test_one_line_a_request_says_who_did_what(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="acme_server")
    await server.post(NEW_ORDER, PAYLOAD)
    (line,) = [each for each in caplog.records if each.getMessage() == "request"]
    fields = vars(line)
    assert (fields["method"], fields["status"], fields["client"]) == ("POST", 201, "127.0.0.1")
    assert fields["route"] == "/acme/{namespace}/{profile}/new-order"
    assert fields["account"] == (server.kid or "").rpartition("/")[2]
    assert fields["ms"] >= 0


@pytest.mark.requirement("SEC63")
async def test_one_line_a_refusal_says_why(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="acme_server")
    await server.post(NEW_ORDER, {})
    (line,) = [each for each in caplog.records if each.getMessage() == "request refused"]
    fields = vars(line)
    assert (fields["outcome"], fields["profile"]) == ("malformed", "pki/web")
    assert "identifiers" in fields["detail"]


async def test_one_line_says_why_a_request_is_answered_with_503(
    server: Server, fail: Callable[[Exception], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="acme_server")
    fail(Unavailable("Profile pki/web is not ready.", 10))
    assert (await server.post(NEW_ORDER, PAYLOAD)).status == 503
    (line,) = [each for each in caplog.records if each.getMessage() == "service unavailable"]
    fields = vars(line)
    assert (fields["detail"], fields["retry_after"]) == ("Profile pki/web is not ready.", 10)
    assert fields["profile"] == "pki/web"


@pytest.mark.requirement("SEC64")
async def test_no_secret_is_in_the_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"{EXTERNAL_URL}/acme/pki/web/new-account"
    eab = binding(server.key, url=url)
    nonce = server.nonces.issue()
    await server.post("/acme/pki/web/new-account", {"externalAccountBinding": eab}, jwk=server.key.jwk, nonce=nonce)
    await server.post(NEW_ORDER, PAYLOAD, nonce=nonce)
    await server.post("/acme/pki/web/orders/" + "a" * 32 + "/finalize", {"csr": "c2VjcmV0"})
    lines = json.dumps([{**vars(each), "args": None} for each in caplog.records], default=str)
    for secret in (eab["signature"], eab["protected"], nonce, server.key.jwk["x"], "c2VjcmV0", "n" * 32):
        assert secret not in lines


@pytest.mark.requirement("SEC64")
async def test_requests_are_counted_by_template_and_status(server: Server) -> None:
    await server.post(NEW_ORDER, PAYLOAD)
    await server.post("/acme/pki/web/orders/" + "a" * 32)
    await server.http.get("/acme/../../etc/passwd")
    await server.http.request("PROPFIND", "/nothing/at/all")
    text = generate_latest(server.metrics.registry).decode()

    def counted(route: str, method: str, status: int) -> Any:
        return f'kms_acme_requests_total{{method="{method}",route="{route}",status="{status}"}} 1.0' in text

    assert counted("/acme/{namespace}/{profile}/new-order", "POST", 201)
    assert counted("/acme/{namespace}/{profile}/orders/{order}", "POST", 404)
    assert counted("none", "other", 404)
    assert "passwd" not in text
    assert "a" * 32 not in text
