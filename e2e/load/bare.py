"""A minimal server that does the unavoidable work of an ACME server, directly with aiohttp and cryptography.

Every request is an HTTPS POST with one ES256 verification. Some also do a part of an order: write to the API server,
fetch a challenge, check a CSR, or sign a certificate. Nine of them cost as much as an order without our own code.
Over plain HTTP, the process reports its CPU time and repeats one part many times. `floor` starts and queries it.
`python -m e2e.load.bare` reads its task from standard input, writes its addresses to standard output, and ends when
standard input is closed.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

import aiohttp
import msgspec
import uvloop
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from e2e.load.keys import COORDINATE, ES256, b64url_decode, certificate_key, certificate_request
from e2e.load.parts import check, leaf
from e2e.load.writes import Endpoint, RawWrites, writing

LOOPBACK = "127.0.0.1"
AT_ONCE = 8
FETCHES = 3


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """The task of the process.

    `x` and `y` are the coordinates of the P-256 key that signs the requests. `certificate` is a file with the
    certificate and key of the server, `challenge` the URL to fetch, `api` the API server to write to.
    """

    x: str
    y: str
    certificate: str
    challenge: str
    api: Endpoint | None = None

    @property
    def key(self) -> ec.EllipticCurvePublicKey:
        """The key that signs the requests."""
        return ec.EllipticCurvePublicNumbers(int(self.x), int(self.y), ec.SECP256R1()).public_key()


class Addresses(msgspec.Struct, frozen=True):
    """The ports on which the process listens."""

    https: int
    http: int


class Stored(msgspec.Struct, frozen=True):
    """An object in the API server, at a version."""

    name: str
    version: str


class SignedBody(msgspec.Struct):
    """A JWS in flattened JSON serialization."""

    protected: str
    payload: str
    signature: str


Work = Callable[[], Awaitable[object]]


def verify(body: bytes, key: ec.EllipticCurvePublicKey) -> None:
    """Verify an ES256 signature.

    Raises:
        cryptography.exceptions.InvalidSignature: if the signature is wrong.
    """
    jws = msgspec.json.decode(body, type=SignedBody)
    raw = b64url_decode(jws.signature)
    r, s = (int.from_bytes(half, "big") for half in (raw[:COORDINATE], raw[COORDINATE:]))
    key.verify(encode_dss_signature(r, s), f"{jws.protected}.{jws.payload}".encode(), ES256)


async def cpu_of(work: Work, count: int) -> float:
    """Run the work `count` times, AT_ONCE concurrently; the CPU seconds of this process per run."""
    turns = iter(range(count))

    async def worker() -> None:
        for _ in turns:
            await work()

    begun = time.process_time()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return (time.process_time() - begun) / count


class Parts:
    """The parts of an order. `writes` is None without an API server."""

    def __init__(self, session: aiohttp.ClientSession, challenge: str, writes: RawWrites | None) -> None:
        self._session = session
        self._challenge = challenge
        self._writes = writes
        self._issuer = certificate_key()
        self._request = certificate_request(["floor.load.test"], certificate_key())

    @property
    def works(self) -> Mapping[str, Work]:
        """Each part by name."""
        works: dict[str, Work] = {"fetch": self.fetch, "csr": self.check, "signature": self.sign}
        return works if self._writes is None else {**works, "write": self._writes.three}

    async def fetch(self) -> None:
        """Fetch a challenge over a new connection, since each validation contacts another host.

        Raises:
            aiohttp.ClientError: if FETCHES attempts fail.
        """
        for left in reversed(range(FETCHES)):
            try:
                async with self._session.get(self._challenge, headers={"Connection": "close"}) as answer:
                    answer.raise_for_status()
                    await answer.read()
                    return
            except aiohttp.ClientConnectionError:
                # A busy machine sometimes resets a connection. A validation would retry, too.
                if not left:
                    raise

    async def check(self) -> None:
        """Check a certificate request."""
        check(self._request)

    async def sign(self) -> None:
        """Build and sign a certificate."""
        leaf(self._issuer, self._issuer.public_key())

    async def create(self) -> Stored:
        """Create the object of an order."""
        return Stored("", "") if self._writes is None else Stored(*await self._writes.create())

    async def put_status(self, stored: Stored) -> Stored:
        """Write the status of the order."""
        if self._writes is None:
            return stored
        return Stored(stored.name, await self._writes.put_status(stored.name, stored.version))

    async def issue(self, stored: Stored) -> Stored:
        """Check the CSR, sign the certificate, write the status."""
        await self.check()
        await self.sign()
        return await self.put_status(stored)


def application(key: ec.EllipticCurvePublicKey, parts: Parts) -> web.Application:
    """The routes. POST verifies the signature; the client returns `stored` in the query, so there is no state."""

    def signed(part: Callable[[Stored], Awaitable[Stored]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            verify(await request.read(), key)
            stored = await part(Stored(request.query.get("name", ""), request.query.get("version", "")))
            return web.Response(body=msgspec.json.encode(stored).ljust(600), content_type="application/json")

        return handle

    async def nothing(stored: Stored) -> Stored:
        return stored

    async def create(_: Stored) -> Stored:
        return await parts.create()

    async def validate(stored: Stored) -> Stored:
        await parts.fetch()
        return stored

    async def cpu(_request: web.Request) -> web.Response:
        return web.Response(text=repr(time.process_time()))

    async def work(request: web.Request) -> web.Response:
        found = parts.works[request.match_info["work"]]
        return web.Response(text=repr(await cpu_of(found, int(request.query["count"]))))

    steps = {
        "nothing": nothing,
        "create": create,
        "validate": validate,
        "store": parts.put_status,
        "issue": parts.issue,
    }
    routes = web.Application()
    routes.add_routes([web.post(f"/{name}", signed(part)) for name, part in steps.items()])
    routes.add_routes([web.get("/cpu", cpu), web.get("/work/{work}", work)])
    return routes


async def run(task: Task, ended: asyncio.Event, tell: Callable[[Addresses], None]) -> None:
    """Serve until `ended` is set; report the addresses with `tell`."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(task.certificate)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        writes = None if task.api is None else await stack.enter_async_context(writing(task.api))
        runner = web.AppRunner(application(task.key, Parts(session, task.challenge, writes)), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        for context in (tls, None):
            await web.TCPSite(runner, LOOPBACK, 0, ssl_context=context).start()
        tell(Addresses(*(address[1] for address in runner.addresses)))
        await ended.wait()


def main() -> None:
    """Run the process."""
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
