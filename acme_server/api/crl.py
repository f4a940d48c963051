"""What certificates point to: revocation lists and certificates of CAs. For anybody, by HTTP and HTTPS."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_writer import StreamWriter
from aiohttp.payload import Payload

from acme_server import urls
from acme_server.api.context import PUBLICATION
from acme_server.api.routing import get
from acme_server.certificates.crl import Document

LIST_TYPE = "application/pkix-crl"
CERTIFICATE_TYPE = "application/pkix-cert"

_LIST_AGE = timedelta(seconds=3)
"""How long caches may answer without asking: with the pause between lists, a revocation is out in ten seconds."""
_CERTIFICATE_AGE = timedelta(minutes=5)
_SLICE = 32 * 1024
_GRACE = 20.0
_SLOWEST = 50_000
"""Seconds that a client has in any case, and octets that it takes in each second beyond."""


async def revocation_list(request: web.Request) -> web.Response:
    """Hand out the list of what a CA has revoked."""
    document = await request.app[PUBLICATION].revocation_list(*_named(request))
    return _answer(request, document, LIST_TYPE, age=_LIST_AGE)


async def certificate(request: web.Request) -> web.Response:
    """Hand out the certificate of a CA."""
    document = request.app[PUBLICATION].certificate(*_named(request))
    return _answer(request, document, CERTIFICATE_TYPE, age=_CERTIFICATE_AGE)


def _named(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["authority"]


def _answer(request: web.Request, document: Document, type_: str, *, age: timedelta) -> web.Response:
    """The document, or 304 for who has it. Only tags are compared: two lists may be of the same second."""
    headers = {
        hdrs.ETAG: f'"{document.tag}"',
        hdrs.LAST_MODIFIED: format_datetime(document.since, usegmt=True),
        hdrs.CACHE_CONTROL: f"public, max-age={int(age.total_seconds())}",
        # By the clock of the machine, as aiohttp's Date, which caches compare it with.
        hdrs.EXPIRES: format_datetime(datetime.now(UTC) + age, usegmt=True),
    }
    if any(each.value in {document.tag, "*"} for each in request.if_none_match or ()):
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    headers |= {hdrs.CONTENT_TYPE: type_, hdrs.X_CONTENT_TYPE_OPTIONS: "nosniff"}
    body = document.der if len(document.der) <= _SLICE else Slices(document.der)
    return web.Response(body=body, headers=headers)


class Slices(Payload):
    """A long document, sent as fast as it is taken: thousands of slow readers do not hold a copy each."""

    def __init__(self, value: bytes, *, grace: float = _GRACE) -> None:
        super().__init__(value)
        self._size = len(value)
        self._seconds = grace + len(value) / _SLOWEST

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Text is what it is not."""
        raise TypeError(f"DER is no {encoding} text ({errors})")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send it. Who takes too long loses the connection."""
        view = memoryview(self._value)
        try:
            async with asyncio.timeout(self._seconds):
                for begin in range(0, len(view), _SLICE):
                    await writer.write(view[begin : begin + _SLICE])
        except TimeoutError:
            if isinstance(writer, StreamWriter) and writer.transport is not None:
                writer.transport.abort()
            raise ConnectionResetError("the client takes too long") from None


ROUTES = (get(urls.REVOCATION_LIST, revocation_list), get(urls.CA_CERTIFICATE, certificate))
