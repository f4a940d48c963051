"""The barest server that could carry ACME: aiohttp over HTTPS, one ES256 verification a request, in its own process.

It also answers like an HTTP-01 client, and tells how much CPU it has used. `floor` measures what its requests cost.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import trustme
import uvloop
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from e2e.load.keys import COORDINATE, ES256, b64url_decoded

LOOPBACK = "127.0.0.1"
START_LIMIT = 30.0
STOP_LIMIT = 5.0
CHALLENGE = "/.well-known/acme-challenge"


@dataclass(frozen=True, slots=True)
class Bare:
    """Where the server is: base addresses, and what to trust."""

    https: str
    http: str
    tls: ssl.SSLContext


class SignedBody(msgspec.Struct):
    """A JWS in flattened JSON serialization."""

    protected: str
    payload: str
    signature: str


def verify(body: bytes, key: ec.EllipticCurvePublicKey) -> None:
    """Check an ES256 signature and nothing else.

    Raises:
        cryptography.exceptions.InvalidSignature: if it is wrong.
    """
    jws = msgspec.json.decode(body, type=SignedBody)
    raw = b64url_decoded(jws.signature)
    r, s = (int.from_bytes(half, "big") for half in (raw[:COORDINATE], raw[COORDINATE:]))
    key.verify(encode_dss_signature(r, s), f"{jws.protected}.{jws.payload}".encode(), ES256)


@contextmanager
def serving(key: ec.EllipticCurvePublicKey) -> Iterator[Bare]:
    """Run the server for requests that are signed by this key."""
    authority = trustme.CA()
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    numbers = key.public_numbers()
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory(prefix="kms-acme-load-") as folder:
        certificate = Path(folder) / "server.pem"
        authority.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(certificate)
        # Spawned, not forked: a fork would take this process's event loop and connections along.
        process = multiprocessing.get_context("spawn").Process(
            target=_run, args=(theirs, str(certificate), numbers.x, numbers.y), daemon=True
        )
        process.start()
        theirs.close()
        try:
            if not ours.poll(START_LIMIT):
                raise TimeoutError(f"the bare server did not start within {START_LIMIT:.0f} s")
            https, http = ours.recv()
            yield Bare(https=f"https://{LOOPBACK}:{https}", http=f"http://{LOOPBACK}:{http}", tls=tls)
        finally:
            ours.close()
            process.join(STOP_LIMIT)
            process.kill()
            process.join()


def _run(pipe: Connection, certificate: str, x: int, y: int) -> None:
    """The process: serves until the other end of the pipe is closed, however that came about."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    uvloop.run(_serve(pipe, tls, ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()))


async def _serve(pipe: Connection, tls: ssl.SSLContext, key: ec.EllipticCurvePublicKey) -> None:
    runner = web.AppRunner(application(key), access_log=None)
    await runner.setup()
    try:
        for context in (tls, None):
            await web.TCPSite(runner, LOOPBACK, 0, ssl_context=context).start()
        closed = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), closed.set)
        pipe.send([address[1] for address in runner.addresses])
        await closed.wait()
    finally:
        await runner.cleanup()


def application(key: ec.EllipticCurvePublicKey) -> web.Application:
    """The routes: a signed POST, a challenge, and the CPU seconds so far."""

    async def signed(request: web.Request) -> web.Response:
        verify(await request.read(), key)
        return web.Response(body=b'{"status":"ready"}'.ljust(600), content_type="application/json")

    async def challenge(_request: web.Request) -> web.Response:
        return web.Response(body=b"t" * 43 + b"." + b"k" * 43)

    async def cpu(_request: web.Request) -> web.Response:
        return web.Response(text=repr(time.process_time()))

    routes = web.Application()
    routes.add_routes([web.post("/", signed), web.get(CHALLENGE + "/{token}", challenge), web.get("/cpu", cpu)])
    return routes
