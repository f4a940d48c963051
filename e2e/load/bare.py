"""A process that does the parts of an order and nothing else, as barely as aiohttp and cryptography allow.

It serves HTTPS requests with one ES256 verification each; it fetches challenges, checks requests, signs certificates
and writes to the API server when told to, and tells what that took of its CPU. `floor` starts and asks it. Run as
`python -m e2e.load.bare`: reads its task from standard input, writes its addresses to standard output, and ends when
standard input does.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
import msgspec
import uvloop
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from e2e.load.keys import COORDINATE, ES256, b64url_decoded, certificate_key, certificate_request
from e2e.load.parts import check, leaf
from e2e.load.writes import Endpoint, writing

LOOPBACK = "127.0.0.1"
AT_ONCE = 8


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told.

    `x` and `y` are the point on P-256 whose holder signs the requests, `certificate` is a file with the server's own
    certificate and key, `challenge` is what to fetch, `api` is where to write.
    """

    x: str
    y: str
    certificate: str
    challenge: str
    api: Endpoint | None = None

    @property
    def key(self) -> ec.EllipticCurvePublicKey:
        """Whoever signs the requests."""
        return ec.EllipticCurvePublicNumbers(int(self.x), int(self.y), ec.SECP256R1()).public_key()


class Addresses(msgspec.Struct, frozen=True):
    """What the process tells: where it listens."""

    https: int
    http: int


class SignedBody(msgspec.Struct):
    """A JWS in flattened JSON serialization."""

    protected: str
    payload: str
    signature: str


Work = Callable[[], Awaitable[object]]


def verify(body: bytes, key: ec.EllipticCurvePublicKey) -> None:
    """Check an ES256 signature and nothing else.

    Raises:
        cryptography.exceptions.InvalidSignature: if it is wrong.
    """
    jws = msgspec.json.decode(body, type=SignedBody)
    raw = b64url_decoded(jws.signature)
    r, s = (int.from_bytes(half, "big") for half in (raw[:COORDINATE], raw[COORDINATE:]))
    key.verify(encode_dss_signature(r, s), f"{jws.protected}.{jws.payload}".encode(), ES256)


async def cpu_of(work: Work, count: int) -> float:
    """CPU seconds of this process for doing the work once, from doing it `count` times, AT_ONCE at once."""
    turns = iter(range(count))

    async def some() -> None:
        for _ in turns:
            await work()

    begun = time.process_time()
    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return (time.process_time() - begun) / count


def application(key: ec.EllipticCurvePublicKey, works: dict[str, Work]) -> web.Application:
    """The routes: a signed POST, the CPU seconds so far, and one that does some of the works."""

    async def signed(request: web.Request) -> web.Response:
        verify(await request.read(), key)
        return web.Response(body=b'{"status":"ready"}'.ljust(600), content_type="application/json")

    async def cpu(_request: web.Request) -> web.Response:
        return web.Response(text=repr(time.process_time()))

    async def work(request: web.Request) -> web.Response:
        return web.Response(text=repr(await cpu_of(works[request.match_info["work"]], int(request.query["count"]))))

    routes = web.Application()
    routes.add_routes([web.post("/", signed), web.get("/cpu", cpu), web.get("/work/{work}", work)])
    return routes


async def run(task: Task, ended: asyncio.Event, tell: Callable[[Addresses], None]) -> None:
    """Serve until `ended` is set."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(task.certificate)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        works = _works(session, task.challenge)
        if task.api is not None:
            works["write"] = await stack.enter_async_context(writing(task.api))
        runner = web.AppRunner(application(task.key, works), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        for context in (tls, None):
            await web.TCPSite(runner, LOOPBACK, 0, ssl_context=context).start()
        tell(Addresses(*(address[1] for address in runner.addresses)))
        await ended.wait()


def _works(session: aiohttp.ClientSession, challenge: str) -> dict[str, Work]:
    issuer, request = certificate_key(), certificate_request(["floor.load.test"], certificate_key())

    async def fetch() -> None:
        # A validation meets another host each time, so the connection is new each time.
        async with session.get(challenge, headers={"Connection": "close"}) as answer:
            answer.raise_for_status()
            await answer.read()

    async def csr() -> None:
        check(request)

    async def signature() -> None:
        leaf(issuer, issuer.public_key())

    return {"fetch": fetch, "csr": csr, "signature": signature}


def main() -> None:
    """The process."""
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)

    def tell(addresses: Addresses) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(addresses) + b"\n")
        sys.stdout.buffer.flush()

    async def serve() -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
        await run(task, ended, tell)

    uvloop.run(serve())


if __name__ == "__main__":
    main()
