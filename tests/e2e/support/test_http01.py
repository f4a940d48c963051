"""The HTTP-01 answerer, asked by the standard library's client and by bare sockets."""

from __future__ import annotations

import gzip
import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from e2e.support.http01 import (
    PREFIX,
    Answerer,
    Compressed,
    Endless,
    Raw,
    Redirect,
    Reply,
    Request,
    Silent,
    Slow,
    SlowHead,
    Text,
    serving,
)


@pytest.fixture
def answerer() -> Answerer:
    return Answerer()


@pytest.fixture
def port(answerer: Answerer) -> Iterator[int]:
    with serving(answerer) as port:
        yield port


def get(port: int, path: str, *, read: int | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read(read)
    finally:
        connection.close()


def test_a_token_is_answered_with_the_key_authorization_of_its_account(answerer: Answerer, port: int) -> None:
    answerer.add("token-1", "thumbprint-1")
    answerer.add("token-2", "thumbprint-2")
    assert get(port, f"{PREFIX}token-2")[::2] == (200, b"token-2.thumbprint-2")


def test_an_unknown_or_removed_token_is_not_found(answerer: Answerer, port: int) -> None:
    answerer.add("token", "thumbprint")
    answerer.remove("token")
    assert [get(port, path)[0] for path in (f"{PREFIX}token", "/token", "/")] == [404, 404, 404]


def test_any_token_is_answered_for_the_only_account() -> None:
    with serving(Answerer(thumbprint="mine")) as port:
        assert get(port, f"{PREFIX}any")[2] == b"any.mine"


def test_a_connection_serves_many_requests_until_the_client_closes_it(answerer: Answerer, port: int) -> None:
    answerer.add("token", "thumbprint")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    for _ in range(3):
        connection.request("GET", f"{PREFIX}token")
        assert connection.getresponse().read() == b"token.thumbprint"
    connection.request("GET", f"{PREFIX}token", headers={"Connection": "close"})
    response = connection.getresponse()
    assert response.read() == b"token.thumbprint"
    connection.close()
    assert len(answerer.requests) == 4


def test_requests_are_remembered_with_their_headers(answerer: Answerer, port: int) -> None:
    get(port, "/path?query")
    (request,) = answerer.requests
    assert request == Request("GET", "/path", {"host": f"127.0.0.1:{port}", "accept-encoding": "identity"})


def test_replies_come_one_after_the_other_and_the_last_one_stays(answerer: Answerer, port: int) -> None:
    answerer.behave("token", Text("no", status=503), Text("wrong"))
    assert [get(port, f"{PREFIX}token")[0] for _ in range(3)] == [503, 200, 200]
    answerer.behave("token")
    assert get(port, f"{PREFIX}token")[0] == 404


def test_a_redirection_of_any_path(answerer: Answerer, port: int) -> None:
    answerer.behave("/elsewhere", Redirect("http://169.254.169.254/", status=307))
    status, headers, _ = get(port, "/elsewhere")
    assert (status, headers["Location"]) == (307, "http://169.254.169.254/")


def test_a_compressed_bomb_is_small_on_the_wire(answerer: Answerer, port: int) -> None:
    answerer.behave("token", Compressed("0123456789", repeated=100_000))
    _, headers, body = get(port, f"{PREFIX}token")
    assert headers["Content-Encoding"] == "gzip"
    assert len(body) < 10_000
    assert len(gzip.decompress(body)) == 1_000_000


def test_an_endless_body_goes_on_as_long_as_it_is_read(answerer: Answerer, port: int) -> None:
    answerer.behave("token", Endless())
    assert len(get(port, f"{PREFIX}token", read=5_000_000)[2]) == 5_000_000


def test_a_slow_body_arrives_octet_by_octet(answerer: Answerer, port: int) -> None:
    answerer.behave("token", Slow("ab", pause=0.05))
    with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(f"GET {PREFIX}token HTTP/1.1\r\n\r\n".encode())
        received = [client.recv(1000)]
        while piece := client.recv(1000):
            received.append(piece)
    assert received[0].endswith(b"\r\n\r\n")
    assert received[1:] == [b"a", b"b"]


@pytest.mark.parametrize("reply", [Silent(), SlowHead(pause=0.05)], ids=["silent", "slow head"])
def test_a_response_that_never_comes_lets_the_client_wait(answerer: Answerer, port: int, reply: Reply) -> None:
    answerer.behave("token", reply)
    with socket.create_connection(("127.0.0.1", port), timeout=0.3) as client:
        client.sendall(f"GET {PREFIX}token HTTP/1.1\r\n\r\n".encode())
        assert b"\r\n\r\n" not in _received(client, seconds=0.4)


def test_raw_octets_are_sent_as_they_are_and_the_connection_ends(answerer: Answerer, port: int) -> None:
    answerer.behave("token", Raw(b"SSH-2.0-x\r\n"))
    with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(f"GET {PREFIX}token HTTP/1.1\r\n\r\n".encode())
        assert client.recv(1000) == b"SSH-2.0-x\r\n"
        assert client.recv(1000) == b""


def test_a_request_without_an_end_is_cut_off(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(b"x" * 20_000)
        assert client.recv(1) == b""


def _received(client: socket.socket, *, seconds: float) -> bytes:
    received, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(TimeoutError):
            received += client.recv(1000)
    return received
