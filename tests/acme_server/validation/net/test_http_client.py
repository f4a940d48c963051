from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.validation.net.http_client import MAXIMUM_LINE, InvalidResponse, Response, request, response

LIMIT = 64


async def read(data: bytes) -> Response:
    reader = asyncio.StreamReader(limit=MAXIMUM_LINE)
    reader.feed_data(data)
    reader.feed_eof()
    return await response(reader, maximum_body=LIMIT)


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
        if len(chunks) < 64 or each is not framed[1]:
            assert asyncio.run(read(each)).body == body


async def test_fields_that_come_twice_are_joined() -> None:
    found = await read(b"HTTP/1.1 302 Found\r\nLocation: /a\r\nLOCATION:/b\r\n\r\n")
    assert found.location == b"/a, /b"


async def test_the_body_of_another_status_is_not_read() -> None:
    found = await read(b"HTTP/1.1 404 Not Found\r\nContent-Length: 999999\r\n\r\nsecret")
    assert found == Response(404, None, b"")


@pytest.mark.requirement("SEC44", "SEC45")
def test_a_request_is_plain() -> None:
    assert request("web.example.com", "/x").split(b"\r\n")[:2] == [b"GET /x HTTP/1.1", b"Host: web.example.com"]


@pytest.mark.parametrize("host", ["wëb", "a\u2028b"])
def test_a_request_never_holds_other_than_ascii(host: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        request(host, "/")
