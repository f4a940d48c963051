"""A proxy for a Kubernetes API server that rejects some requests, like an overloaded API server.

    proxy = Proxy(upstream, trust=ca_certificate)
    with serving(proxy, certificate=..., key=..., host=...) as port:
        proxy.refuse(Refusal(429, retry_after=1), Refusal(503), share=0.3)
        ...
        assert proxy.refused[503]

It forwards tokens. It can reject the start of a watch, but never ends a running one.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web
from yarl import URL

from e2e.support.threads import in_thread

_LARGEST = 2**22
"""Maximum size of a request body; etcd accepts less."""
_GOODBYE = 0.25
"""Seconds for TLS connections to close, since aiohttp offers no way to await it."""
_OF_THE_HOP = frozenset({"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding"})
_REASONS = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The rejection of a request."""

    status: int
    retry_after: int | None = None
    after: float = 0.0
    """Delay in seconds."""

    def response(self) -> web.Response:
        """The response in the format of the API server."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "refused by the proxy of the test",
            "reason": _REASONS.get(self.status, ""),
            "code": self.status,
        }
        return web.json_response(body, status=self.status, headers=headers)


def _ignore(_request: web.Request, _body: bytes) -> None:
    """Do nothing."""


class Proxy:
    """Forwards or rejects requests. Its settings can change at any time, from any thread."""

    def __init__(
        self,
        upstream: str,
        *,
        trust: Path,
        chance: Callable[[], float],
        observe: Callable[[web.Request, bytes], None] = _ignore,
    ) -> None:
        """`upstream` is the URL of the API server, `trust` its CA certificate.

        `chance` draws from [0, 1). A fixed rhythm of rejections could match that of periodic requests. `observe` is
        called with each request and its body.
        """
        self._upstream = URL(upstream)
        self._tls = ssl.create_default_context(cafile=str(trust))
        self._chance = chance
        self._observe = observe
        self._share = 0.0
        self._refusals: Iterator[Refusal] = iter(())
        self._session: aiohttp.ClientSession | None = None
        self.passed = 0
        """The number of forwarded requests."""
        self.refused: Counter[int] = Counter()
        """The number of rejected requests by status."""

    def refuse(self, *refusals: Refusal, share: float = 1.0) -> None:
        """Reject this share of the requests with these refusals in turn; without refusals, reject none."""
        self._refusals = itertools.cycle(refusals)
        self._share = share if refusals else 0.0

    @asynccontextmanager
    async def listening(self, *, certificate: Path, key: Path, host: str, port: int = 0) -> AsyncIterator[int]:
        """Serve on a port (0: a free one); yields the port.

        Raises:
            OSError: the port is taken.
        """
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate, key)
        application = web.Application(client_max_size=_LARGEST)
        application.router.add_route("*", "/{path:.*}", self._handle)
        # A silent watch would not notice the end of its client.
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as self._session:
            await runner.setup()
            try:
                await web.TCPSite(runner, host, port, ssl_context=tls).start()
                yield runner.addresses[0][1]
            finally:
                # A killed pod never closes its connections.
                for each in runner.server.connections if runner.server else ():
                    if each.transport is not None:
                        each.transport.abort()
                await runner.cleanup()
                await asyncio.sleep(_GOODBYE)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self._observe(request, body)
        if self._chance() < self._share:
            refusal = next(self._refusals)
            self.refused[refusal.status] += 1
            await asyncio.sleep(refusal.after)
            return refusal.response()
        self.passed += 1
        try:
            return await self._passed_on(request, body)
        except (aiohttp.ClientError, OSError):
            # If one side has gone, close the connection to the other.
            if request.transport is not None:
                request.transport.abort()
            return web.Response()

    async def _passed_on(self, request: web.Request, body: bytes) -> web.StreamResponse:
        assert self._session is not None, "listening() opens the session"
        url = self._upstream.join(URL(request.raw_path, encoded=True))
        headers = _end_to_end(request.headers)
        # An API server answers 415 to a GET with an unknown Content-Type.
        asked = self._session.request(
            request.method, url, data=body or None, headers=headers, skip_auto_headers=("Content-Type", "User-Agent")
        )
        async with asked as answer:
            response = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers))
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


def serving(
    proxy: Proxy, *, certificate: Path, key: Path, host: str = "127.0.0.1", port: int = 0
) -> AbstractContextManager[int]:
    """Serve in a thread, for synchronous code."""
    return in_thread(proxy.listening(certificate=certificate, key=key, host=host, port=port), name="api-proxy")


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers without hop-by-hop headers (RFC 9110, 7.6.1)."""
    return {name: value for name, value in headers.items() if name.lower() not in _OF_THE_HOP}
