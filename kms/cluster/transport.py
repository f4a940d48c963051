"""Bytes to and from the API server: a bounded pool for calls, one connection for each watch, a deadline for all.

Requests go straight to aiohttp. The official client's ApiClient.call_api takes about a fifth more CPU for a write (126
to 191 us against 103 to 162, on a busy machine), because it wants plain dictionaries and makes JSON of them itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import aiohttp
import msgspec
from yarl import URL

from kms.cluster.auth import Connection
from kms.cluster.errors import ClusterError, Delivery, TooLong, Unavailable, error_of
from kms.cluster.metrics import APIMetrics
from kms.cluster.retry import PATIENCE, Budget, Call, Timing

Verb = Literal["get", "list", "watch", "create", "update", "patch", "delete"]

DEADLINE_SECONDS = 9.0
"""For a call with all of its attempts. A client that waits for it has an answer within ten seconds."""
SILENCE_SECONDS = 70.0
"""A watch that is silent for longer is taken for dead: an API server sends a bookmark each minute."""
POOL_SIZE = 64
LINE_BYTES = 2**21
"""Half of the longest line of a watch. An object is at most 1.5 MiB in etcd; JSON escapes make it longer."""

USER_AGENT = "kms-acme"
"""The part before a slash is the field manager of our plain writes."""

JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""A list of objects without spec and status."""
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

_METHODS = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}
_UNAUTHORIZED = 401
_FIRST_OTHER = 300
_LOST = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
"""What aiohttp raises where no answer comes; it raises ValueError for a line that is too long."""


class Request(msgspec.Struct, frozen=True):
    """One request. `target` is path and query, quoted already. An answer of more than `most` octets is not read."""

    verb: Verb
    plural: str
    target: str
    body: bytes | None = None
    content_type: str = JSON
    accept: str = JSON
    most: int | None = None


class Transport:
    """Sends requests, some of them again; raises the errors of kms.cluster.errors and nothing else."""

    def __init__(
        self,
        connection: Connection,
        *,
        metrics: APIMetrics | None = None,
        deadline: float = DEADLINE_SECONDS,
        silence: float = SILENCE_SECONDS,
        timing: Timing | None = None,
    ) -> None:
        self._connection = connection
        self._metrics = metrics
        self._deadline = deadline
        self._timing = timing or Timing()
        self._budget = Budget()
        self._calls = self._session(limit=POOL_SIZE, silence=None)
        # aiohttp would repeat a PUT or DELETE whose connection broke, and the answer could be our own Conflict.
        self._calls._retry_connection = False  # noqa: SLF001 - there is no other switch
        # Watches hold their connections, so they do not take them from the pool; there is one for each reflector.
        self._watches = self._session(limit=0, silence=silence)

    async def close(self) -> None:
        """Close all connections."""
        await self._calls.close()
        await self._watches.close()

    async def send(self, request: Request) -> bytes:
        """The body of the answer, after as many attempts as kms.cluster.retry allows. Raises ClusterError."""
        deadline = asyncio.get_running_loop().time() + self._deadline
        call: Call | None = None
        began = self._timing.monotonic()
        while True:
            try:
                body = await self._attempt(request, deadline)
            except ClusterError as error:
                call = call or self._call(request.verb)
                pause = call.pause(error, self._timing.monotonic() - began)
            else:
                self._budget.earn()
                return body
            if self._metrics is not None:
                self._metrics.count_repeat(request.verb, request.plural)
            await self._timing.sleep(pause)

    def _call(self, verb: Verb) -> Call:
        return Call(verb, self._budget, patience=PATIENCE * self._deadline, random=self._timing.random)

    async def _attempt(self, request: Request, deadline: float) -> bytes:
        started = time.perf_counter()
        try:
            async with asyncio.timeout_at(deadline):
                answer = await self._answer(self._calls, request)
                body = await _read(answer, request.most)
        except _LOST as error:
            raise self._unavailable(request, error, started) from error
        self._count(request, answer.status, started)
        if body is None:
            raise TooLong(f"{request.verb} {request.plural}: the answer is longer than {request.most} octets")
        if answer.status >= _FIRST_OTHER:
            raise error_of(answer.status, body, answer.headers.get("Retry-After"))
        return body

    async def lines(
        self, request: Request, *, on_open: Callable[[], None] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The lines of a watch, until the API server ends it. `on_open` is called when it has been accepted.

        Raises ClusterError.
        """
        async with self._watch(request) as answer:
            if on_open is not None:
                on_open()
            while line := await answer.content.readline():
                yield line

    async def batches(self, request: Request, *, silence: float) -> AsyncGenerator[list[bytes], None]:
        """The lines of a watch, as many at a time as have arrived: where many come at once, cheaper than one by one.

        Raises what `lines` raises, and Unavailable after `silence` seconds without a line.
        """
        now, rest = asyncio.get_running_loop().time, b""
        async with self._watch(request) as answer:
            until = now() + silence
            while True:
                # Octets alone put nothing off: something that sends a few now and then would never end.
                async with asyncio.timeout_at(until):
                    chunk = await answer.content.readany()
                if not chunk:
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > 2 * LINE_BYTES:
                    raise ValueError("a line is too long")
                if lines:
                    yield lines
                    until = now() + silence

    @asynccontextmanager
    async def _watch(self, request: Request) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """The answer to a watch that has been accepted. Raises ClusterError, also for what ends it in the block."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._deadline):
                answer = await self._answer(self._watches, request)
            async with answer:
                self._count(request, answer.status, started)
                if answer.status >= _FIRST_OTHER:
                    raise error_of(answer.status, await answer.read(), answer.headers.get("Retry-After"))
                try:
                    yield answer
                finally:
                    _abort(answer)
        except _LOST as error:
            raise self._unavailable(request, error, started) from error

    async def _answer(self, session: aiohttp.ClientSession, request: Request) -> aiohttp.ClientResponse:
        """The head of the answer; after a 401, that of a second attempt if there is another token."""
        token = await self._connection.authorization()
        answer = await self._ask(session, request, token)
        if answer.status == _UNAUTHORIZED:
            await self._connection.renew(token)
            renewed = await self._connection.authorization()
            if renewed != token:
                answer.release()
                return await self._ask(session, request, renewed)
        return answer

    def _ask(
        self, session: aiohttp.ClientSession, request: Request, token: str | None
    ) -> Awaitable[aiohttp.ClientResponse]:
        headers = {"Accept": request.accept}
        if token is not None:
            headers["Authorization"] = token
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        return session.request(
            _METHODS[request.verb],
            URL(self._connection.host + request.target, encoded=True),
            data=request.body,
            headers=headers,
            allow_redirects=False,  # the token is for this host alone
            proxy=self._connection.proxy,
            server_hostname=self._connection.server_hostname,
        )

    def _unavailable(self, request: Request, error: Exception, started: float) -> Unavailable:
        self._count(request, 0, started)
        message = f"{request.verb} {request.plural}: {str(error) or type(error).__name__}"
        return Unavailable(message, delivery=_delivery(error))

    def _count(self, request: Request, status: int, started: float) -> None:
        if self._metrics is not None:
            self._metrics.count(request.verb, request.plural, status, time.perf_counter() - started)

    def _session(self, *, limit: int, silence: float | None) -> aiohttp.ClientSession:
        tls = self._connection.tls
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limit, ssl=True if tls is None else tls, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=silence),
            # Compressing costs both sides more CPU than a network inside a cluster saves.
            headers={"Accept-Encoding": "identity", "User-Agent": USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=LINE_BYTES,
            trust_env=False,  # looking for proxies in the environment costs four times the call itself
        )


def _abort(answer: aiohttp.ClientResponse) -> None:
    """Close the connection of a watch that is given up, without waiting for the API server to take leave, too.

    Otherwise TLS keeps it open for up to 30 s, and nothing waits for its end.
    """
    if answer.connection is not None and answer.connection.transport is not None:
        answer.connection.transport.abort()


async def _read(answer: aiohttp.ClientResponse, most: int | None) -> bytes | None:
    """The body; None if it is longer than `most` octets, which are never in memory at once."""
    if most is None:
        return await answer.read()
    chunks, octets = [], 0
    async for chunk in answer.content.iter_any():
        octets += len(chunk)
        if octets > most:
            answer.close()
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _delivery(error: Exception) -> Delivery:
    match error:
        case TimeoutError() | aiohttp.ClientSSLError():
            return Delivery.UNKNOWN  # the deadline is over, or the certificate will be no better in a second
        case aiohttp.ClientConnectorError():
            return Delivery.NOT_BEGUN
        case aiohttp.ClientError() | OSError():
            return Delivery.CONNECTION_LOST
        case _:
            return Delivery.UNKNOWN
