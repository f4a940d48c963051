"""The response of a web server to the request for a key authorization (RFC 8555, 8.3)."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, StreamReader
from functools import cache

from acme_server.validation.net.http_client import Exchange, InvalidResponse
from fuzz.target import Target

_MAXIMUM_BODY = 256


@cache
def _loop() -> AbstractEventLoop:
    """An event loop that never runs; all bytes are available from the start."""
    return asyncio.new_event_loop()


def read(data: bytes) -> None:
    """Parse a whole response."""
    reader = StreamReader(loop=_loop())
    reader.feed_data(data)
    reader.feed_eof()
    reading = Exchange("www.example.com", "/").read_response(reader, maximum_body=_MAXIMUM_BODY)
    try:
        reading.send(None)
    except StopIteration as finished:
        if len(finished.value.body) > _MAXIMUM_BODY:
            raise AssertionError("the body is too long") from finished


TARGET = Target(read, (InvalidResponse, EOFError))
