from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from h11 import LocalProtocolError
from hypothesis import given
from hypothesis import strategies as st

from acme_server.validation.net.http_client import (
    MAXIMUM_FRAMING,
    MAXIMUM_HEAD,
    Exchange,
    InvalidResponse,
    Response,
)
from tests.support.processor import least_time

LIMIT = 64


async def read(data: bytes) -> Response:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await Exchange("web.example.com", "/").read_response(reader, maximum_body=LIMIT)


class Endless(asyncio.StreamReader):
    """A response that never ends: `start`, then `more` again and again."""

    def __init__(self, start: bytes, more: bytes) -> None:
        super().__init__()
        self.taken = 0
        self._start, self._more = start, more

    async def read(self, n: int = -1) -> bytes:
        assert n > 0
        while len(self._start) < n:
            self._start += self._more
        part, self._start = self._start[:n], self._start[n:]
        self.taken += n
        return part


fragments = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 302 Found",
        b"HTTP/1.1 100 Continue",
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b"Content-Length: 5",
        b"Content-Length: 99999999999999999999999",
        b"Transfer-Encoding: chunked",
        b"Location: /x",
        b"0",
        b"5",
        b"ffffffffffffffffffff",
        b"hello",
        b":",
        b" ",
        b"\0",
    ]
)
documents = st.lists(st.one_of(fragments, st.binary(max_size=8)), max_size=30).map(b"".join)


@pytest.mark.requirement("SEC40", "SEC45")
@given(documents)
def test_no_bytes_are_anything_but_a_response_or_a_failure(data: bytes) -> None:
    try:
        found = asyncio.run(read(data))
    except (InvalidResponse, EOFError):
        return
    assert 200 <= found.status <= 999
    assert len(found.body) <= LIMIT


@given(st.binary(max_size=LIMIT), st.integers(1, 20))
def test_a_body_is_the_same_however_it_is_framed(body: bytes, size: int) -> None:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in chunks) + b"0\r\n\r\n"
    framed = (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s and more" % (len(body), body),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n" + chunked,
        b"HTTP/1.0 200 OK\r\n\r\n" + body,
    )
    for each in framed:
        assert asyncio.run(read(each)).body == body


@pytest.mark.requirement("SEC45")
@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: y", b"y"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n", b" folded\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nX: %s\r\n\r\n" % (b"y" * 6000)),
        (b"", b"HTTP/1.1 "),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;%s\r\nx\r\n" % (b"e" * 500)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"e"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"Trailer: x\r\n"),
    ],
)
async def test_no_more_is_taken_in_than_a_response_may_have(start: bytes, more: bytes) -> None:
    reader = Endless(start, more)
    with pytest.raises(InvalidResponse):
        await Exchange("web.example.com", "/").read_response(reader, maximum_body=LIMIT)
    assert reader.taken <= MAXIMUM_HEAD + LIMIT + MAXIMUM_FRAMING


@pytest.mark.requirement("SEC41")
@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n" + b"a:\n" * 5440 + b"\n",
        b"HTTP/1.1 200 OK\r\nX: y\n" + b" y\n" * 5000 + b"\n",
        b"HTTP/1.1 200 OK\r\nX: y" + b" \t" * 7000 + b"z\n\n",
    ],
)
def test_the_most_laborious_head_is_read_in_a_moment(data: bytes) -> None:
    def attempt() -> None:
        reader = asyncio.StreamReader(loop=loop)
        reader.feed_data(data)
        reader.feed_eof()
        with suppress(InvalidResponse):
            loop.run_until_complete(Exchange("web.example.com", "/").read_response(reader, maximum_body=LIMIT))

    loop = asyncio.new_event_loop()
    assert least_time(attempt) < 0.05
    loop.close()


async def test_fields_that_come_twice_are_joined() -> None:
    found = await read(b"HTTP/1.1 302 Found\r\nLocation: /a\r\nLOCATION:/b\r\n\r\n")
    assert found.location == b"/a, /b"


async def test_the_body_of_another_status_is_not_read() -> None:
    found = await read(b"HTTP/1.1 404 Not Found\r\nContent-Length: 999999\r\n\r\nsecret")
    assert found == Response(404, None, b"")


@pytest.mark.requirement("SEC44", "SEC45")
def test_a_request_is_plain() -> None:
    head, body = Exchange("web.example.com", "/x").request.split(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"GET /x HTTP/1.1",
        b"Host: web.example.com",
        b"User-Agent: kms-acme (ACME validation)",
        b"Accept: */*",
        b"Accept-Encoding: identity",
        b"Connection: close",
    ]
    assert body == b""


@pytest.mark.parametrize("host", ["wëb", "a\u2028b"])
def test_a_request_never_holds_other_than_ascii(host: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        Exchange(host, "/")


@pytest.mark.parametrize(("host", "target"), [("web", "/ HTTP/1.1\r\nX: y"), ("web\r\nX: y", "/"), ("web", "/ x")])
def test_a_request_never_has_more_lines_than_its_own(host: str, target: str) -> None:
    with pytest.raises(LocalProtocolError):
        Exchange(host, target)
