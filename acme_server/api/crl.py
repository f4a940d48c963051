"""CRLs and CA certificates, whose URLs are in every certificate. They are public, over HTTP and HTTPS."""

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
from acme_server.api.context import Context
from acme_server.api.request import Request
from acme_server.api.routing import get
from acme_server.certificates.crl import DERFile
from kms.contract import SERVING_CA_PATH, SERVING_LIST_PATH

LIST_TYPE = "application/pkix-crl"
CERTIFICATE_TYPE = "application/pkix-cert"

_LIST_AGE = timedelta(seconds=3)
"""How long caches may keep a CRL. With the pause between two CRLs, clients see a revocation within ten seconds."""
_CERTIFICATE_AGE = timedelta(minutes=5)
_SLICE = 32 * 1024
_GRACE = 20.0
_SLOWEST = 50_000
"""A client may take _GRACE seconds, and one more for every _SLOWEST octets."""


async def revocation_list(request: Request, context: Context) -> web.Response:
    """Read the CRL of a CA."""
    document = await context.crls.current(*_authority_in(request), _key_in(request))
    return _answer(request, document, LIST_TYPE, age=_LIST_AGE)


async def certificate(request: Request, context: Context) -> web.Response:
    """Read the certificate of a CA."""
    crls = context.crls
    await crls.recall(*_authority_in(request))
    document = crls.ca_certificate(*_authority_in(request), _key_in(request))
    return _answer(request, document, CERTIFICATE_TYPE, age=_CERTIFICATE_AGE)


async def serving_list(request: Request, context: Context) -> web.Response:
    """Read the CRL of the CA of the server's own certificate."""
    return _answer(request, context.serving_authority.revocation_list(), LIST_TYPE, age=_LIST_AGE)


async def serving_certificate(request: Request, context: Context) -> web.Response:
    """Read the certificate of that CA."""
    return _answer(request, context.serving_authority.certificate(), CERTIFICATE_TYPE, age=_CERTIFICATE_AGE)


def _authority_in(request: Request) -> tuple[str, str]:
    return request.parameters["namespace"], request.parameters["authority"]


def _key_in(request: Request) -> str | None:
    return request.parameters.get("key")


def _answer(request: Request, document: DERFile, type_: str, *, age: timedelta) -> web.Response:
    """The document, or 304. Only entity tags are compared: two CRLs may have the same second."""
    headers = {
        hdrs.ETAG: f'"{document.etag}"',
        hdrs.LAST_MODIFIED: format_datetime(document.last_modified, usegmt=True),
        hdrs.CACHE_CONTROL: f"public, max-age={int(age.total_seconds())}",
        # From the system clock, like the Date header that caches compare it with.
        hdrs.EXPIRES: format_datetime(datetime.now(UTC) + age, usegmt=True),
    }
    if any(each.value in {document.etag, "*"} for each in request.if_none_match or ()):
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    headers |= {hdrs.CONTENT_TYPE: type_, hdrs.X_CONTENT_TYPE_OPTIONS: "nosniff"}
    body = document.der if len(document.der) <= _SLICE else Slices(document.der)
    return web.Response(body=body, headers=headers)


class Slices(Payload):
    """A long document, sent in slices, so that thousands of slow clients do not hold a copy each."""

    def __init__(self, value: bytes, *, grace: float = _GRACE) -> None:
        super().__init__(value)
        self._size = len(value)
        self._seconds = grace + len(value) / _SLOWEST

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Refuse: DER is not text."""
        raise TypeError(f"DER is no {encoding} text ({errors})")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send it. Clients that take too long lose the connection."""
        view = memoryview(self._value)
        try:
            async with asyncio.timeout(self._seconds):
                for begin in range(0, len(view), _SLICE):
                    await writer.write(view[begin : begin + _SLICE])
        except TimeoutError:
            if isinstance(writer, StreamWriter) and writer.transport is not None:
                writer.transport.abort()
            raise ConnectionResetError("the client takes too long") from None


ROUTES = (
    get(urls.REVOCATION_LIST, revocation_list),
    get(urls.REVOCATION_LIST_OF_KEY, revocation_list),
    get(urls.CA_CERTIFICATE, certificate),
    get(urls.CERTIFICATE_OF_KEY, certificate),
    get(SERVING_LIST_PATH, serving_list),
    get(SERVING_CA_PATH, serving_certificate),
)
