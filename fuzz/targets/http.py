"""What a web server answers to the question for a key authorization (RFC 8555, 8.3)."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, StreamReader
from functools import cache

from acme_server.validation.net.http_client import MAXIMUM_LINE, InvalidResponse, response
from fuzz.target import Target

_MAXIMUM_BODY = 256


@cache
def _loop() -> AbstractEventLoop:
    """A loop that is never run: all bytes are there from the start, so nothing waits."""
    return asyncio.new_event_loop()


def read(data: bytes) -> None:
    """The whole answer at once."""
    reader = StreamReader(limit=MAXIMUM_LINE, loop=_loop())
    reader.feed_data(data)
    reader.feed_eof()
    reading = response(reader, maximum_body=_MAXIMUM_BODY)
    try:
        reading.send(None)
    except StopIteration as finished:
        if len(finished.value.body) > _MAXIMUM_BODY:
            raise AssertionError("a body that is too long") from finished


TARGET = Target(read, (InvalidResponse, EOFError))
