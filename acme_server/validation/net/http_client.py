"""Fetches a small document from a host that a client has chosen, and follows redirects (RFC 8555, 8.3).

Every hop is a new connection to an address that was checked for it, with one request and one response. h11 parses the
response, and the bytes it is given are bounded. A client without cookies, proxies, credentials, compression and reuse
of connections cannot be talked into using them. Problem details name the identifier, its address and the kind of
failure, and repeat nothing that came over the wire. Behind a redirect every failure has the same text and type: the
client chose the target, and must not learn from us which hosts and ports exist there. The log has the reason.

Lines may end in LF alone (RFC 9112, 2.2): acme.sh's standalone server sends such lines, and h11 accepts them and folded
ones (RFC 9112, 5.2). Compressed bodies are refused to say what is wrong: nothing is ever unpacked.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import StreamReader
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import h11

from acme_server.problems import ProblemType
from acme_server.validation.attempt import ValidationFailed
from acme_server.validation.dns.client import Resolver
from acme_server.validation.net import redirects
from acme_server.validation.net.address_filter import AddressFilter
from acme_server.validation.net.connector import CONNECT, DEADLINE, Connector, Destination, TLSOptions
from acme_server.validation.net.redirects import FetchURL
from acme_server.validation.net.tls_client import unverified_context
from kms.address import IPAddress

logger = logging.getLogger(__name__)

MAXIMUM_HEAD: Final = 16 * 1024
"""Octets before the body, interim responses included. They bound the number and length of fields."""
MAXIMUM_FRAMING: Final = 4 * 1024
"""Octets of a chunked body that are not content."""
_COMPRESSIONS: Final = frozenset(
    {b"gzip", b"x-gzip", b"compress", b"x-compress", b"deflate", b"br", b"zstd", b"dcb", b"dcz", b"exi", b"aes128gcm"}
)
"""The content codings that change a body. With a plain one, servers also name character sets, "none" or nothing."""
_MAXIMUM_INTERIM = 3
_PART = 4 * 1024
_VERSION = b"HTTP/1."
_OK = 200
_NOT_IMPLEMENTED = 501


class InvalidResponse(ValueError):
    """A response that is not acceptable HTTP/1.1. The message says why, without repeating any of it."""


@dataclass(frozen=True, slots=True)
class Response:
    """The parts of a response that matter. `body` is read for status 200 only."""

    status: int
    location: bytes | None
    body: bytes


class Exchange:
    """One request and its response. `host` and `target` (path and query) consist of visible ASCII characters."""

    def __init__(
        self,
        host: str,
        target: str,
        *,
        method: str = "GET",
        agent: str = "kms-acme (ACME validation)",
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        self._http = h11.Connection(h11.CLIENT)
        fields = [
            ("Host", host),
            ("User-Agent", agent),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
            *headers,
            *([("Content-Length", str(len(body)))] if body else []),
        ]
        self.request = self._http.send(h11.Request(method=method, target=target, headers=fields)) or b""
        if body:
            self.request += self._http.send(h11.Data(data=body)) or b""
        self.request += self._http.send(h11.EndOfMessage()) or b""
        self._start = b""
        self._ended = False
        self._left = MAXIMUM_HEAD

    async def read_response(self, reader: StreamReader, *, maximum_body: int) -> Response:
        """Read the response. Raises InvalidResponse; EOFError if the connection ends too early; OSError."""
        head = await self._read_head(reader)
        fields = list(head.headers)
        locations = [value for name, value in fields if name == b"location"]
        body = await self._read_body(reader, fields, maximum_body) if head.status_code == _OK else b""
        return Response(head.status_code, b", ".join(locations) if locations else None, body)

    async def read_status(self, reader: StreamReader) -> tuple[int, bytes | None]:
        """Read the status and Retry-After, and nothing more. Raises as `read_response` does."""
        head = await self._read_head(reader)
        return head.status_code, dict(head.headers).get(b"retry-after")

    async def _read_head(self, reader: StreamReader) -> h11.Response:
        """Read the head of the final response, after interim ones (RFC 9110, 15.2)."""
        for _ in range(_MAXIMUM_INTERIM + 1):
            event = await self._next_event(reader, "head")
            if isinstance(event, h11.Response):
                return event
        raise InvalidResponse("it has too many interim responses")

    async def _read_body(self, reader: StreamReader, fields: Sequence[tuple[bytes, bytes]], maximum: int) -> bytes:
        codings = [value for name, value in fields if name == b"content-encoding"]
        if any(map(_names_compression, codings)):
            raise InvalidResponse("its body is compressed")
        by_name = dict(fields)
        length = by_name.get(b"content-length")
        # With both, two programs may see two different bodies (RFC 9112, 6.3).
        if length is not None and b"transfer-encoding" in by_name:
            raise InvalidResponse("its body has a transfer coding and a Content-Length")
        too_long = InvalidResponse(f"its body is longer than {maximum} bytes")
        if length is not None and int(length) > maximum:
            raise too_long
        self._left = maximum + MAXIMUM_FRAMING
        body = b""
        while isinstance(event := await self._next_event(reader, "body"), h11.Data):
            body += event.data
            if len(body) > maximum:
                raise too_long
        return body

    async def _next_event(self, reader: StreamReader, section: str) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                if self._left <= 0:
                    raise InvalidResponse(f"its {section} takes too many bytes")
                self._receive(await reader.read(min(_PART, self._left)))
        except h11.RemoteProtocolError as error:
            if self._ended:
                raise EOFError("the connection was closed in the middle of the response") from None
            if error.error_status_hint == _NOT_IMPLEMENTED:
                raise InvalidResponse("its body has a transfer coding that is not supported") from None
            raise InvalidResponse(f"its {section} is malformed") from None
        return event

    def _receive(self, data: bytes) -> None:
        """Hand the bytes to h11, which looks at the first line only when the head is complete: so do that here."""
        self._left -= len(data)
        self._ended = not data
        if len(self._start) < len(_VERSION):
            self._start = (self._start + data)[: len(_VERSION)]
            if not _VERSION.startswith(self._start):
                raise InvalidResponse("it is not an HTTP/1.1 response")
        self._http.receive_data(data)


def _names_compression(value: bytes) -> bool:
    return any(each.strip().lower() in _COMPRESSIONS for each in value.split(b","))


@dataclass(frozen=True, slots=True)
class Document:
    """The final response. `source` says where it came from, for people. `redirected`: from behind a redirect."""

    status: int
    body: bytes
    source: str
    redirected: bool


class HTTPClient:
    """Fetches documents of at most `maximum_body` octets. Raises ValidationFailed, and nothing else.

    `deadline` is for everything: lookups, connections, redirects, the body.
    """

    def __init__(
        self,
        *,
        resolver: Resolver,
        addresses: AddressFilter,
        ports: frozenset[int] = redirects.PORTS,
        deadline: float = DEADLINE,
        connect: float = CONNECT,
    ) -> None:
        self._connector = Connector(resolver=resolver, addresses=addresses, timeout=connect)
        self._ports = ports
        self._deadline = deadline
        self._context = unverified_context()

    async def fetch(self, url: FetchURL, *, maximum_body: int) -> Document:
        """Fetch the document at the URL, following at most ten redirects."""
        hops = _Hops(url)
        try:
            async with asyncio.timeout(self._deadline):
                return await self._follow_redirects(hops, maximum_body)
        except TimeoutError:
            failure = ValidationFailed(
                ProblemType.CONNECTION,
                f"Fetching {url} took longer than {self._deadline:g} seconds.",
                temporary=True,
            )
        except ValidationFailed as failed:
            failure = failed
        if hops.number:
            raise failure_behind_redirect(url, str(failure)) from None
        raise failure from None

    async def _follow_redirects(self, hops: _Hops, maximum_body: int) -> Document:
        for _ in range(redirects.MAXIMUM_REDIRECTS + 1):
            response, source = await self._get(hops.url, hops.number, maximum_body)
            if response.status not in redirects.STATUSES:
                return Document(response.status, response.body, source, redirected=hops.number > 0)
            if response.location is None:
                raise ValidationFailed(ProblemType.INCORRECT_RESPONSE, f"{source} redirects without a Location.")
            try:
                hops.follow(redirects.resolve_redirect(hops.url, response.location, ports=self._ports))
            except redirects.RedirectRefused as error:
                raise ValidationFailed(ProblemType.INCORRECT_RESPONSE, f"{source} cannot be used: {error}.") from None
        raise ValidationFailed(
            ProblemType.INCORRECT_RESPONSE, f"it redirects more than {redirects.MAXIMUM_REDIRECTS} times."
        )

    async def _get(self, url: FetchURL, hop: int, maximum_body: int) -> tuple[Response, str]:
        """The response of one hop, and a description of where it comes from."""
        tls = TLSOptions(self._context, url.name.value) if url.scheme == "https" else None
        with await self._connector.connect(_destination(url, hop), tls) as connection:
            source = _describe(url, hop, connection.address)
            exchange = Exchange(url.host, url.path)
            try:
                reader = connection.send_request(exchange.request)
                return await exchange.read_response(reader, maximum_body=maximum_body), source
            except InvalidResponse as error:
                raise ValidationFailed(
                    ProblemType.INCORRECT_RESPONSE, f"The response of {source} cannot be used: {error}."
                ) from None
            except (OSError, EOFError):
                raise ValidationFailed(
                    ProblemType.CONNECTION, f"{source} closed the connection before it had answered.", temporary=True
                ) from None


@dataclass
class _Hops:
    """Where a fetch is: the URL of its hop, and how many redirects led there."""

    url: FetchURL
    number: int = 0

    def follow(self, url: FetchURL) -> None:
        self.url = url
        self.number += 1


def failure_behind_redirect(first: FetchURL, reason: str) -> ValidationFailed:
    """The failure of a fetch that was redirected, in the same words whatever the `reason`, which is logged."""
    logger.info("validation failed behind a redirect", extra={"url": str(first), "error": reason})
    detail = f"{first} redirects to a place where the key authorization of this challenge was not found."
    return ValidationFailed(ProblemType.UNAUTHORIZED, detail, temporary=True)


def _destination(url: FetchURL, hop: int) -> Destination:
    # The target of a redirect was chosen by what was fetched, so it is not repeated.
    label = url.name.value if hop == 0 else f"the host of redirect {hop}"
    return Destination(url.name, url.port, label, hidden=hop > 0)


def _describe(url: FetchURL, hop: int, address: IPAddress) -> str:
    return f"{url} ({address})" if hop == 0 else f"the target of redirect {hop}"
