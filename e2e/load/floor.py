"""The floor: the CPU time that an order needs at least, measured on this machine alongside the load.

RFC 8555 and Kubernetes require for each order: nine HTTPS requests with one ES256 verification each, three writes of a
custom resource, one http-01 fetch, one check of a CSR and one signature of a certificate. A bare server (bare.py) does
this work for clients that behave like those of the load. Its CPU time per order is the floor. The parts are measured in
a tight loop, too, to show where the time goes; a server that wakes up for each request has cold caches, so the same
code takes several times as long there.

Rounds are short and run between the segments of the load. The result is the median.
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import sys
import tempfile
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import aiohttp
import msgspec
import trustme

from e2e.load.bare import AT_ONCE, LOOPBACK, Addresses, Stored, Task, Work
from e2e.load.keys import AccountKey
from e2e.load.writes import Endpoint

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT = 30.0
STOP_LIMIT = 5.0

REQUEST, WRITE, FETCH, CHECK, SIGNATURE = "request", "write", "fetch", "csr", "signature"


@dataclass(frozen=True, kw_only=True)
class RoundSize:
    """How often a round runs a bare request, a bare order and each part. One WRITE is three writes, as for an order."""

    requests: int = 400
    orders: int = 48
    works: Mapping[str, int] = field(
        default_factory=lambda: MappingProxyType({FETCH: 60, CHECK: 100, SIGNATURE: 100, WRITE: 20})
    )


def bare_order(names: int) -> tuple[str, ...]:
    """The steps of an order with this number of names, each with its work besides the verification.

    They represent: nonce, newOrder; authorization and challenge of each name; a poll of each authorization, the first
    of which stores the result; order, finalize, order, certificate.
    """
    answered, asked = ("nothing", "validate") * names, ("store", *("nothing",) * (names - 1))
    return ("nothing", "create", *answered, *asked, "nothing", "issue", "nothing", "nothing")


def shares(names: int) -> dict[str, int]:
    """The number of each part in an order: nine requests for one name, three more for each further name."""
    return {REQUEST: len(bare_order(names)), WRITE: 3, FETCH: names, CHECK: 1, SIGNATURE: 1}


class Floor:
    """Measures in rounds and keeps the results."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        addresses: Addresses,
        key: AccountKey,
        *,
        names: int,
        works: list[str],
        size: RoundSize,
    ) -> None:
        self._session = session
        self._https = f"https://{LOOPBACK}:{addresses.https}"
        self._http = f"http://{LOOPBACK}:{addresses.http}"
        self._key = key
        self._steps = bare_order(names)
        self._works = works
        self._size = size
        self._rounds: dict[str, list[float]] = {}
        self._orders: list[float] = []

    async def warm_up(self) -> None:
        """Run a round whose result is discarded: connections open, code is compiled."""
        await self._cpu_of(self._bare_order, self._size.orders)

    async def round(self) -> None:
        """Measure bare orders and every part."""
        self._orders.append(await self._cpu_of(self._bare_order, self._size.orders))
        self._add(REQUEST, await self._cpu_of(self._bare_request, self._size.requests))
        for work in self._works:
            seconds = await self._number(f"/work/{work}?count={self._size.works[work]}")
            self._add(work, seconds / 3 if work == WRITE else seconds)

    @property
    def order(self) -> float:
        """Median CPU seconds of a bare order: the floor."""
        return statistics.median(self._orders)

    @property
    def parts(self) -> dict[str, float]:
        """Median CPU seconds of each part."""
        return {name: statistics.median(values) for name, values in self._rounds.items()}

    @property
    def rounds(self) -> int:
        """The number of rounds."""
        return len(self._rounds.get(REQUEST, ()))

    def _add(self, part: str, seconds: float) -> None:
        self._rounds.setdefault(part, []).append(seconds)

    async def _bare_request(self) -> None:
        await self._send("nothing", Stored("", ""))

    async def _bare_order(self) -> None:
        stored = Stored("", "")
        for step in self._steps:
            stored = await self._send(step, stored)

    async def _send(self, step: str, stored: Stored) -> Stored:
        url = f"{self._https}/{step}"
        header = {"alg": "ES256", "kid": f"{self._https}/accounts/{'a' * 52}", "nonce": "n" * 43, "url": url}
        body = self._key.jws(header, {"identifiers": [{"type": "dns", "value": "floor.load.test"}]})
        where = {"name": stored.name, "version": stored.version}
        async with self._session.post(url, data=body, params=where) as answer:
            answer.raise_for_status()
            return msgspec.json.decode(await answer.read(), type=Stored)

    async def _cpu_of(self, work: Work, count: int) -> float:
        """Run the work `count` times, AT_ONCE concurrently; the CPU seconds of the bare server per run."""
        turns = iter(range(count))

        async def worker() -> None:
            for _ in turns:
                await work()

        before = await self._number("/cpu")
        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        return (await self._number("/cpu") - before) / count

    async def _number(self, path: str) -> float:
        async with self._session.get(self._http + path) as answer:
            answer.raise_for_status()
            return float(await answer.text())


class NoFloor:
    """Replaces Floor if the floor is not measured."""

    order = 0.0
    rounds = 0

    async def warm_up(self) -> None:
        """Do nothing."""

    async def round(self) -> None:
        """Measure nothing."""

    @property
    def parts(self) -> dict[str, float]:
        """Empty."""
        return {}


@asynccontextmanager
async def measuring(
    *, challenge: str, api: Endpoint | None, names: int = 1, size: RoundSize | None = None
) -> AsyncIterator[Floor]:
    """Start a bare server. `challenge` is the URL to fetch; without `api`, writes are left out.

    Raises:
        TimeoutError: if the process does not start.
    """
    size = size or RoundSize()
    key, authority = AccountKey.generate(), trustme.CA()
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    numbers = key.private.public_key().public_numbers()
    with tempfile.NamedTemporaryFile(prefix="kms-acme-load-", suffix=".pem") as certificate:
        certificate.write(authority.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.bytes())
        certificate.flush()
        task = Task(x=str(numbers.x), y=str(numbers.y), certificate=certificate.name, challenge=challenge, api=api)
        async with _bare(task) as addresses, _session(tls) as session:
            works = [work for work in size.works if work != WRITE or api is not None]
            yield Floor(session, addresses, key, names=names, works=works, size=size)


def _session(tls: ssl.SSLContext) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls))


@asynccontextmanager
async def _bare(task: Task) -> AsyncIterator[Addresses]:
    process = await create_subprocess_exec(sys.executable, "-m", "e2e.load.bare", stdin=PIPE, stdout=PIPE, cwd=ROOT)
    if process.stdin is None or process.stdout is None:
        raise AssertionError("the process has no pipes")
    try:
        process.stdin.write(msgspec.json.encode(task) + b"\n")
        async with asyncio.timeout(START_LIMIT):
            line = await process.stdout.readline()
        yield msgspec.json.decode(line, type=Addresses)
    finally:
        process.stdin.close()
        await _stop(process)


async def _stop(process: Process) -> None:
    try:
        async with asyncio.timeout(STOP_LIMIT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
