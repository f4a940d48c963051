import asyncio
import json
import logging
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest
import uvloop

from kms.address import Address
from kms.connections import ConnectionLimits
from kms.listener import Deadlines, HTTPLog, listen, plain_error
from tests.support.eventually import until
from tests.support.listening import ask, listening


@pytest.mark.requirement("M2")
async def test_requests_are_answered_over_tls() -> None:
    async with listening() as server:
        assert (await server.get()).endswith(b"hello")


@pytest.mark.requirement("SEC39")
async def test_without_a_context_requests_are_answered_without_tls_within_the_same_limits() -> None:
    async with listening(maximum=1, plain=True) as server:
        assert (await server.get(plain=True)).endswith(b"hello")
        await until(lambda: server.listener.count() == 0)
        held = await server.connect(plain=True)
        busy = asyncio.create_task(ask(held, "/slow"))
        await until(lambda: server.busy == 1)
        assert await server.get(plain=True) == b""
        assert server.refused == [1]
        server.release.set()
        assert await busy
        held[1].close()


@pytest.mark.requirement("S154", "SEC39")
async def test_no_more_connections_are_held_than_allowed() -> None:
    async with listening(maximum=3) as server:
        held = [await server.connect() for _ in range(3)]
        requests = [asyncio.create_task(ask(each, "/slow")) for each in held]
        await until(lambda: server.busy == 3)
        assert server.listener.count() == 3
        for _ in range(2):
            with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
                await server.connect()
        assert len(server.refused) == 2
        assert server.evicted == []
        server.release.set()
        await asyncio.gather(*requests)
        for _, writer in held:
            writer.close()
        await until(lambda: server.listener.count() == 0)
        assert (await server.get()).endswith(b"hello")


@pytest.mark.requirement("SEC39", "SEC75")
@pytest.mark.parametrize("held", ["handshake", "silent", "half a request", "half a body", "idle", "response not taken"])
async def test_when_all_connections_are_taken_others_are_served_all_the_same(held: str) -> None:
    plain = held == "response not taken"
    async with listening(maximum=10, plain=plain) as server:
        taken = []
        for _ in range(10):
            streams = await server.connect(plain=plain or held == "handshake", source="127.0.0.2")
            if held == "half a request":
                streams[1].write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            elif held == "half a body":
                streams[1].write(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
            elif held == "idle":
                assert await ask(streams)
            elif plain:
                streams[1].transport.pause_reading()  # type: ignore[attr-defined] # it is a read transport
                streams[1].write(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
            taken.append(streams)
        await until(lambda: server.listener.count() == 10 and (not plain or server.busy == 10))
        others = [await server.connect(plain=plain, source="127.0.0.3") for _ in range(5)]
        assert await asyncio.gather(*(ask(each) for each in others)), "none of them is closed for another"
        assert server.listener.count() == 10
        assert (len(server.refused), len(server.evicted)) == (0, 5)
        for reader, writer in taken[:5] if not plain else ():
            with suppress(ConnectionError):
                assert not await asyncio.wait_for(reader.read(), 5), "those that were open longest are closed"
            writer.close()
        if held == "idle":
            assert await ask(taken[9])
        for _, writer in (*taken, *others):
            if plain:
                writer.transport.abort()
            writer.close()


@pytest.mark.requirement("SEC39")
async def test_a_request_whose_body_came_later_is_not_interrupted_either() -> None:
    async with listening(maximum=1, plain=True) as server:
        held = await server.connect(plain=True, source="127.0.0.2")
        held[1].write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nx")
        await until(lambda: server.busy == 1)
        held[1].write(b"yzz")
        await asyncio.sleep(0.1)
        assert await server.get(plain=True, source="127.0.0.3") == b""
        server.release.set()
        assert await held[0].readuntil(b"hello")
        assert (await server.get(plain=True, source="127.0.0.3")).endswith(b"hello"), "now it is idle"
        held[1].close()


@pytest.mark.requirement("SEC39")
async def test_a_body_that_comes_after_the_answer_is_no_request() -> None:
    async with listening(maximum=1, plain=True) as server:
        held = await server.connect(plain=True, source="127.0.0.2")
        held[1].write(b"POST /body?read=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nx")
        assert await held[0].readuntil(b"hello")
        held[1].write(b"yzz")
        await asyncio.sleep(0.1)
        assert (await server.get(plain=True, source="127.0.0.3")).endswith(b"hello")
        held[1].close()


@pytest.mark.requirement("SEC39", "SEC75")
async def test_one_address_has_a_share_and_uses_it_up_for_itself_alone() -> None:
    async with listening(limits=ConnectionLimits(maximum=16), plain=True) as server:
        greedy = [await server.connect(plain=True, source="127.0.0.2") for _ in range(8)]
        await until(lambda: len(server.evicted) == 6)
        assert server.listener.count() == 2
        requests = [asyncio.create_task(ask(each, "/slow")) for each in greedy[6:]]
        await until(lambda: server.busy == 2)
        assert await server.get(plain=True, source="127.0.0.2") == b""
        assert server.refused == [1]
        assert (await server.get(plain=True, source="127.0.0.3")).endswith(b"hello")
        server.release.set()
        await asyncio.gather(*requests)
        for _, writer in greedy:
            writer.close()


@pytest.mark.requirement("SEC39")
async def test_a_proxy_has_no_share() -> None:
    proxies = (ip_network("127.0.0.2/32"),)
    async with listening(limits=ConnectionLimits(maximum=16, proxies=proxies), plain=True) as server:
        held = [await server.connect(plain=True, source="127.0.0.2") for _ in range(16)]
        await until(lambda: server.listener.count() == 16)
        assert server.evicted == []
        for _, writer in held:
            writer.close()


@pytest.mark.requirement("SEC39")
async def test_idle_connections_are_closed_sooner_when_half_of_all_are_open() -> None:
    limits = ConnectionLimits(maximum=8, per_address=8, keep_alive=60, crowded_keep_alive=0.1)
    async with listening(limits=limits, deadlines=Deadlines(every=0.02)) as server:
        held = [await server.connect() for _ in range(4)]
        for each in held:
            assert await ask(each)
        await asyncio.sleep(0.3)
        assert server.listener.count() == 4
        more = await server.connect()
        assert await ask(more)
        held.append(more)
        await until(lambda: server.listener.count() < 4)
        assert server.evicted == []
        for _, writer in held:
            writer.close()


@pytest.mark.requirement("SEC39")
@pytest.mark.parametrize("plain", [True, False])
async def test_a_client_that_does_not_take_its_answer_loses_the_connection(plain: bool) -> None:
    limits = ConnectionLimits(maximum=8, keep_alive=0.2, longest_request=0.2)
    async with listening(limits=limits, plain=plain, deadlines=Deadlines(every=0.02)) as server:
        _, writer = await server.connect(plain=plain)
        writer.transport.pause_reading()  # type: ignore[attr-defined] # it is a read transport
        writer.write(b"GET /long HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await until(lambda: server.busy == 1)
        await until(lambda: server.listener.count() == 0)
        writer.transport.abort()


@pytest.mark.requirement("SEC39")
async def test_a_client_that_does_not_end_tls_loses_the_connection() -> None:
    limits = ConnectionLimits(maximum=8, keep_alive=0.5)
    async with listening(limits=limits, deadlines=Deadlines(every=0.02)) as server:
        streams = await server.connect()
        assert await ask(streams)
        streams[1].transport.pause_reading()  # type: ignore[attr-defined] # it never sees the end
        await until(lambda: server.listener.count() == 0)
        streams[1].transport.abort()


@pytest.mark.requirement("SEC39")
@pytest.mark.parametrize(
    "test",
    [
        partial(test_when_all_connections_are_taken_others_are_served_all_the_same, "handshake"),
        partial(test_when_all_connections_are_taken_others_are_served_all_the_same, "idle"),
        partial(test_a_client_that_does_not_take_its_answer_loses_the_connection, plain=False),
        test_a_client_that_does_not_end_tls_loses_the_connection,
    ],
)
def test_the_event_loop_of_the_server_closes_connections_too(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test())


@pytest.mark.requirement("SEC39")
async def test_connections_that_do_not_finish_their_handshake_count_and_are_closed() -> None:
    async with listening(maximum=2, deadlines=Deadlines(handshake=0.2)) as server:
        flood = [await server.connect(plain=True) for _ in range(4)]
        await until(lambda: len(server.evicted) == 2)
        assert server.listener.count() == 2
        await until(lambda: server.listener.count() == 0)
        assert (await server.get()).endswith(b"hello")
        for _, writer in flood:
            writer.close()


@pytest.mark.requirement("SEC39")
@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_connections_that_never_say_a_whole_request_are_closed(said: bytes) -> None:
    async with listening(deadlines=Deadlines(first_request=0.1)) as server:
        reader, writer = await server.connect()
        writer.write(said)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


@pytest.mark.requirement("SEC39")
def test_silent_connections_are_closed_by_the_event_loop_of_the_server_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """uvloop hands its own TLS protocol back, where asyncio hands back ours."""

    async def silence() -> None:
        async with listening(deadlines=Deadlines(first_request=0.1)) as server:
            reader, writer = await server.connect()
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
            assert (await server.get()).endswith(b"hello")
            await asyncio.sleep(0.3)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(silence())
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


@pytest.mark.requirement("SEC39")
async def test_connections_that_have_spoken_may_be_idle() -> None:
    async with listening(deadlines=Deadlines(first_request=0.1)) as server:
        reader, writer = await server.connect()
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"hello" in await reader.readuntil(b"hello")
            await asyncio.sleep(0.2)
        writer.close()


@pytest.mark.requirement("M2")
async def test_what_is_no_tls_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="kms")
    async with listening() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await until(lambda: server.listener.count() == 0)
    assert "handshake failed" in caplog.text


async def test_accepting_goes_on_when_there_were_no_files_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[OSError] = [ConnectionAbortedError(), OSError(24, "Too many open files")]
    loop = asyncio.get_running_loop()
    accept = loop.sock_accept

    async def failing(listening_socket: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop(0)
        return await accept(listening_socket)

    monkeypatch.setattr(loop, "sock_accept", failing)
    async with listening() as server:
        assert (await server.get()).endswith(b"hello")
    assert caplog.text.count("cannot accept connections") == 1


@pytest.mark.parametrize("host", ["", "127.0.0.1", "::1"])
def test_one_socket_listens_where_it_is_told(host: str) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        made = listen(Address(host, 0))
    except OSError:
        assert host == "::1", "only IPv6 may be missing"
        return
    with made, socket.create_connection((host or "127.0.0.1", made.getsockname()[1])):
        assert not made.getblocking()


def test_other_errors_of_the_framework_are_told_whole(caplog: pytest.LogCaptureFixture) -> None:
    HTTPLog(logging.getLogger("acme_server")).exception("Unhandled %s", "exception", exc_info=ZeroDivisionError("why"))
    assert "Unhandled exception" in caplog.text
    assert "ZeroDivisionError: why" in caplog.text


MALFORMED = (
    b"\0\1\2\3\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 5000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 70 + b"\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nxyz",
)


@pytest.mark.parametrize("said", MALFORMED)
async def test_malformed_http_is_answered_with_a_problem_that_names_no_library(
    said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with listening() as server:
        reader, writer = await server.connect()
        writer.write(said)
        head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
        writer.close()
    status, *headers = head.split(b"\r\n")
    assert status.startswith(b"HTTP/1.0 400 ")
    assert b"Content-Type: application/problem+json" in headers
    assert json.loads(body)["type"] == "urn:ietf:params:acme:error:malformed"
    assert not re.search("aiohttp|python", (head + body).decode(), re.IGNORECASE)
    assert [(each.getMessage(), each.exc_info) for each in caplog.records if each.name == "kms.listener"] == [
        ("malformed HTTP", None)
    ]


@pytest.mark.parametrize("said", [b"GET /missing HTTP/1.1", b"BREW / HTTP/1.1", b"GET / HTTP/1.1\r\nExpect: tea"])
async def test_no_other_answer_names_a_library_either(said: bytes) -> None:
    async with listening(plain=True) as server:
        reader, writer = await server.connect(plain=True)
        writer.write(said + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = (await asyncio.wait_for(reader.read(), 5)).decode()
        writer.close()
    assert "Server: kms-acme\r\n" in answer
    assert not re.search("aiohttp|python", answer, re.IGNORECASE)


async def test_a_program_without_words_of_its_own_answers_malformed_http_with_text() -> None:
    assert (plain_error(400).status, plain_error(400).text) == (400, "malformed HTTP\n")
    assert (plain_error(500).status, plain_error(500).text) == (500, "internal error\n")


LIMITS = """
import logging, resource, sys
from kms.listener import allow_open_files
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))
allow_open_files(128)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.requirement("SEC39")
@pytest.mark.parametrize(("hard", "soft", "told"), [(256, 128, False), (128, 128, False), (100, 100, True)])
def test_files_for_all_connections_may_be_opened(hard: int, soft: int, told: bool) -> None:
    command = [sys.executable, "-c", LIMITS, str(hard)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(soft), str(hard)]
    assert ("the limit of open files is too low" in done.stderr) == told
