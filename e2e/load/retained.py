"""`python -m e2e.load.retained`: what a server costs where the cluster holds many orders.

One certificate is ordered, and its ACMEOrder copied as often as wanted, straight into etcd: by the API server it would
take many minutes, which nobody wants to measure. Then a server starts, and its time to ready and its memory are read;
the sweep is timed over copies whose certificates have expired.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import secrets
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import click

from e2e import dns, http01
from e2e.cluster import ClusterError, Progress, running
from e2e.cluster.install import install
from e2e.load.measure import ZONE, Target, client
from e2e.load.processes import usages
from e2e.load.scenario import SetUpFailed, command_of, configured
from e2e.load.writes import NAMESPACE
from e2e.programs import ProgramFailed, Programs, Server, running_programs

PREFIX = f"/registry/pki.kms.hanzo.ai/acmeorders/{NAMESPACE}/"
BATCH = 100
"""Writes in one transaction: etcd takes 128."""
EXPIRED = "zz"
"""What the names of expired orders begin with, so that etcd can count them."""
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
LIMIT = 600.0
POLL = 0.5

Stored = Mapping[str, Any]
"""An object as it lies in etcd."""


@dataclass(frozen=True, slots=True)
class Etcd:
    """Reads and writes keys through the JSON gateway of etcd."""

    session: aiohttp.ClientSession
    url: str

    async def first(self) -> Stored:
        """The first order of the namespace."""
        found = await self._send("kv/range", {**_range(PREFIX), "limit": "1"})
        stored: Stored = json.loads(base64.b64decode(found["kvs"][0]["value"]))
        return stored

    async def count(self, prefix: str) -> int:
        """How many keys begin like that."""
        return int((await self._send("kv/range", {**_range(prefix), "count_only": True})).get("count", 0))

    async def write(self, orders: Iterator[Stored]) -> None:
        """Write all of them."""
        batch: list[dict[str, Any]] = []
        for each in orders:
            key, value = f"{PREFIX}{each['metadata']['name']}", json.dumps(each)
            batch.append({"requestPut": {"key": _base64(key), "value": _base64(value)}})
            if len(batch) == BATCH:
                await self._send("kv/txn", {"success": batch})
                batch = []
        if batch:
            await self._send("kv/txn", {"success": batch})

    async def _send(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        async with self.session.post(f"{self.url}/v3/{path}", json=body) as answer:
            answer.raise_for_status()
            found: dict[str, Any] = await answer.json()
        return found


def copies(order: Stored, count: int, *, expired: bool = False) -> Iterator[Stored]:
    """Orders like this one, each with a name, a serial number and an identifier of its own."""
    ended = f"{datetime.now(UTC) - timedelta(days=400):%Y-%m-%dT%H:%M:%SZ}"
    for number in range(count):
        made = copy.deepcopy(dict(order))
        name = "".join(secrets.choice(LETTERS) for _ in range(32))
        made["metadata"] |= {"name": EXPIRED + name[2:] if expired else f"a{name[1:]}", "uid": str(uuid.uuid4())}
        value = f"{'expired' if expired else 'retained'}-{number}.{ZONE}"
        made["spec"]["identifiers"] = [{"type": "dns", "value": value}]
        made["status"]["authorizations"][0]["identifier"]["value"] = value
        made["status"]["serialNumber"] = secrets.token_hex(16).replace("0", "1")
        made["status"]["publicKeyDigest"] = secrets.token_hex(32)
        if expired:
            made["status"]["authorizations"][0]["expires"] = ended
            made["spec"]["expires"] = made["status"]["notBefore"] = made["status"]["notAfter"] = ended
        yield made


@dataclass(frozen=True, slots=True)
class Started:
    """How a server came up: seconds until it was ready, seconds of CPU, octets of resident memory."""

    seconds: float
    cpu: float
    resident: int


def started(server: Server) -> Started:
    """Start a server and see how it comes up."""
    begun = time.perf_counter()
    server.start()
    server.wait_until_ready(LIMIT)
    seconds = time.perf_counter() - begun
    usage = usages({"server": command_of(server.guard)})["server"]
    return Started(seconds, usage.cpu, usage.resident)


async def one_certificate(target: Target) -> None:
    """Have the server write an order that can be copied."""
    async with AsyncExitStack() as stack:
        answerer = http01.Answerer()
        await stack.enter_async_context(http01.listening(answerer, port=target.http_port))
        await stack.enter_async_context(dns.listening(dns.Zone(ZONE), port=target.dns_port))
        account = await stack.enter_async_context(client(target))
        await account.register(external_account=target.external_account)
        await account.obtain([f"first.{ZONE}"], answerer.add)


async def measure(
    programs: Programs, target: Target, etcd_url: str, *, orders: int, expired: int, tell: Callable[[str], object]
) -> None:
    """Fill the cluster, start a server, let it sweep; `tell` is given what was seen, in lines for people."""
    server = programs.add_server(peers=True)
    server.wait_until_ready()
    empty = await asyncio.to_thread(restarted, server)
    tell(shown("no orders", empty))
    await one_certificate(target)
    async with aiohttp.ClientSession() as session:
        etcd = Etcd(session, etcd_url)
        first = await etcd.first()
        tell(f"one order: {len(json.dumps(first))} octets in etcd")
        await etcd.write(copies(first, orders))
        filled = await asyncio.to_thread(restarted, server)
        tell(shown(f"{await etcd.count(PREFIX):,} orders", filled))
        growth = (filled.resident - empty.resident) / orders
        tell(f"each order: {growth:,.0f} octets of memory, {(filled.cpu - empty.cpu) / orders * 1e6:.0f} us of CPU")
        if expired:
            await etcd.write(copies(first, expired, expired=True))
            await asyncio.to_thread(restarted, server)
            tell(await swept(etcd, server, expired))


def restarted(server: Server) -> Started:
    """Stop a server and see how it comes up again."""
    server.stop()
    return started(server)


async def swept(etcd: Etcd, server: Server, expired: int) -> str:
    """Wait until the expired orders are gone; how fast they went once they began to go."""
    deadline, begun, seen = time.monotonic() + LIMIT, time.perf_counter(), expired
    while left := await etcd.count(PREFIX + EXPIRED):
        if left == expired:
            begun, seen = time.perf_counter(), left
        if time.monotonic() > deadline:
            raise TimeoutError(f"{left} of {expired} expired orders are still there.\n{server.end_of_log()}")
        await asyncio.sleep(POLL)
    rate = seen / (time.perf_counter() - begun)
    return f"sweep: {expired:,} expired orders went at {rate:.0f} a second, {rate * 3600:,.0f} an hour"


def shown(what: str, seen: Started) -> str:
    """A line for people."""
    return (
        f"{what}: ready after {seen.seconds:.1f} s ({seen.cpu:.1f} s of CPU), {seen.resident / 2**20:.0f} MiB resident"
    )


def _range(prefix: str) -> dict[str, str]:
    return {"key": _base64(prefix), "range_end": _base64(prefix[:-1] + chr(ord(prefix[-1]) + 1))}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--orders", type=click.IntRange(1), default=20_000, show_default=True, help="Orders with certificates.")
@click.option("--expired", type=click.IntRange(0), default=500, show_default=True, help="Orders to be swept besides.")
def main(orders: int, expired: int) -> None:
    """Measure how a server starts, and what it holds in memory, where the cluster holds many orders."""
    progress = Progress(sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix="kms-acme-retained-") as name:
            folder = Path(name)
            with running(folder / "cluster", progress) as cluster:
                install(cluster)
                with running_programs(cluster, folder) as programs:
                    target = configured(cluster, programs, plane=folder / "cluster")
                    work = measure(programs, target, cluster.etcd_url, orders=orders, expired=expired, tell=click.echo)
                    asyncio.run(work)
    except (ClusterError, SetUpFailed, ProgramFailed, TimeoutError, aiohttp.ClientError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main(prog_name="python -m e2e.load.retained")
