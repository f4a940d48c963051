import asyncio
import logging
import socket
import ssl

import pytest
import uvloop

from acme_server.api.listener import HTTPLog, listen
from kms.address import Address
from tests.support.eventually import until
from tests.support.listening import listening


@pytest.mark.requirement("M2")
async def test_requests_are_answered_over_tls() -> None:
    async with listening() as server:
        assert (await server.get()).endswith(b"hello")


@pytest.mark.requirement("SEC39")
async def test_without_a_context_requests_are_answered_without_tls_within_the_same_limits() -> None:
    async with listening(maximum=1, plain=True) as server:
        assert (await server.get(plain=True)).endswith(b"hello")
        await until(lambda: server.listener.count() == 0)
        held = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: server.listener.count() == 1)
        assert await server.get(plain=True) == b""
        assert server.refused == [1]
        held[1].close()


@pytest.mark.requirement("S154", "SEC39")
async def test_no_more_connections_are_held_than_allowed() -> None:
    async with listening(maximum=3) as server:
        held = [await server.connect() for _ in range(3)]
        assert server.listener.count() == 3
        for _ in range(2):
            with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
                await server.connect()
        assert len(server.refused) == 2
        for _, writer in held:
            writer.close()
        await until(lambda: server.listener.count() == 0)
        assert (await server.get()).endswith(b"hello")


@pytest.mark.requirement("SEC39")
async def test_connections_that_do_not_finish_their_handshake_count_and_are_closed() -> None:
    async with listening(maximum=2, handshake_deadline=0.2) as server:
        flood = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
        await until(lambda: len(server.refused) == 2)
        assert server.listener.count() == 2
        await until(lambda: server.listener.count() == 0)
        assert (await server.get()).endswith(b"hello")
        for _, writer in flood:
            writer.close()


@pytest.mark.requirement("SEC39")
@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_connections_that_never_say_a_whole_request_are_closed(said: bytes) -> None:
    async with listening(first_request_deadline=0.1) as server:
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
        async with listening(first_request_deadline=0.1) as server:
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
    async with listening(first_request_deadline=0.1) as server:
        reader, writer = await server.connect()
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"hello" in await reader.readuntil(b"hello")
            await asyncio.sleep(0.2)
        writer.close()


@pytest.mark.requirement("M2")
async def test_what_is_no_tls_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="acme_server")
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
