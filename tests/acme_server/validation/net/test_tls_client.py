from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import pytest
from cryptography import x509

from acme_server.validation.net.tls_client import MAXIMUM_DATA, HandshakeTooLong, TLSStream, unverified_context
from tests.support.alpn import certificate, serving

NAME = "web.example.com"
CERTIFICATE = certificate([x509.DNSName(NAME)], None)


async def with_server(use: Callable[[TLSStream], Awaitable[None]], answer: bytes, *chain: x509.Certificate) -> None:
    """Connect to a server that sends `answer` after the handshake, and hangs up."""
    begun, served = False, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal begun
        begun = True
        writer.write(answer)
        try:
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except OSError:
            writer.transport.abort()
        served.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving(*(chain or (CERTIFICATE,)))) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        try:
            await use(TLSStream(reader, writer, unverified_context(), NAME))
        finally:
            writer.transport.abort()
            if begun:
                await served.wait()


@pytest.mark.parametrize("answer", [b"", b"hello", b"x" * 40_000])
async def test_content_arrives_up_to_its_end(answer: bytes) -> None:
    received = asyncio.StreamReader()

    async def use(stream: TLSStream) -> None:
        await stream.handshake()
        stream.send(b"anything")
        await stream.receive(received)

    await with_server(use, answer)
    assert await received.read() == answer


@pytest.mark.requirement("SEC45")
async def test_content_beyond_the_limit_is_left_where_it_is() -> None:
    received = asyncio.StreamReader()

    async def use(stream: TLSStream) -> None:
        await stream.handshake()
        await stream.receive(received)

    await with_server(use, b"x" * 1_000_000)
    assert MAXIMUM_DATA <= len(await received.read()) < 2 * MAXIMUM_DATA


@pytest.mark.requirement("SEC41", "SEC48")
async def test_a_handshake_beyond_the_limit_is_given_up() -> None:
    async def use(stream: TLSStream) -> None:
        with pytest.raises(HandshakeTooLong):
            await stream.handshake()

    await with_server(use, b"", *[CERTIFICATE] * 100)


async def test_what_is_no_tls_after_the_handshake_ends_the_content() -> None:
    received = asyncio.StreamReader()

    async def use(stream: TLSStream) -> None:
        await stream.handshake()
        stream.reader.feed_data(b"this is no record")
        await stream.receive(received)

    await with_server(use, b"")
    assert await received.read() == b""


def test_strangers_are_met_with_tls_1_2_at_least_and_believed_nothing() -> None:
    context = unverified_context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_NONE
