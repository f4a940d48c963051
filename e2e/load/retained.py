"""`python -m e2e.load.retained`: what a server costs where the cluster holds many orders.

One certificate is ordered, and its ACMEOrder copied as often as wanted, straight into etcd: by the API server it would
take many minutes, which nobody wants to measure. Then a server starts, and its time to ready and its memory are read;
the sweep is timed over copies whose certificates have expired.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import click
import msgspec

from e2e.cluster import AuditLog, Cluster, ClusterError, CommandFailed, Progress, running
from e2e.cluster.install import install
from e2e.load.copies import EXPIRED, Etcd, copies
from e2e.load.measure import SERVER, ZONE, Target, client
from e2e.load.processes import machine, peak, usages
from e2e.load.report import verdicts
from e2e.load.scenario import SetUpFailed, command_of, component_pid, configured
from e2e.support import dns, http01
from e2e.support.programs import RELEASE, ProgramFailed, Programs, Server, running_programs

READY_LIMIT = 30.0
MEMORY_LIMIT = 400e6
SWEEP_LIMIT = 10_000 / 3600
"""What the project promises with 100,000 orders: seconds until a server is ready, octets that it ever holds, orders a
second that it removes, which is as many as expire where 10,000 do in an hour."""

PATIENCE = 420.0
"""Seconds that a server may take to start, to be told about at all."""
SLOWEST = 5.0
"""Orders a second below which nobody waits for the end of a sweep."""
QUIET = 0.1
"""Cores that the control plane may use and is idle all the same."""
POLL = 0.5

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Started:
    """How a server came up: seconds until it was ready, seconds of CPU, octets of memory: then, and ever until then.

    `plane` is the CPU of the control plane meanwhile, `others` how many cores somebody else has used.
    """

    seconds: float
    cpu: float
    plane: float
    resident: int
    peak: int
    others: float


@dataclass(frozen=True, slots=True)
class Retained:
    """What was measured. `lists` are those of our server in all of its lives, `unlimited` the URIs of those without a
    limit. `swept` is in orders a second, `peak` the most octets that the server held while it swept."""

    orders: int
    empty: Started
    filled: Started
    lists: int
    unlimited: tuple[str, ...]
    swept: float | None = None
    peak: int = 0

    def promises(self) -> list[tuple[str, bool]]:
        """What was promised, and whether it was kept."""
        octets = max(self.filled.peak, self.peak)
        kept = [
            (f"ready within {READY_LIMIT:.0f} s: {self.filled.seconds:.1f} s", self.filled.seconds < READY_LIMIT),
            (f"never more than {MEMORY_LIMIT / 1e6:.0f} MB of memory: {octets / 1e6:.0f} MB", octets < MEMORY_LIMIT),
            (f"every list has a limit: {self.lists - len(self.unlimited)} of {self.lists}", not self.unlimited),
        ]
        if self.swept is not None:
            text = f"the sweep removes {SWEEP_LIMIT:.1f} orders a second: {self.swept:.1f}"
            kept.append((text, self.swept >= SWEEP_LIMIT))
        return kept


class Measuring:
    """A server on a cluster whose files are in the folder `plane`."""

    def __init__(self, cluster: Cluster, programs: Programs, target: Target, *, plane: Path, tell: Tell) -> None:
        self._server = programs.server
        self._cluster = cluster
        self._audit = cluster.audit()
        self._target = target
        self._plane = plane
        self._tell = tell

    async def run(self, *, orders: int, expired: int) -> Retained:
        """Fill the cluster, start a server, let it sweep; what is seen is told on the way."""
        empty = await self._started("no orders")
        await one_certificate(self._target)
        async with aiohttp.ClientSession() as session:
            etcd = Etcd(session, self._cluster.etcd_url)
            await self._fill(etcd, orders, expired)
            count = await etcd.count()
            filled = await self._started(f"{count:,} orders")
            growth, cpu = filled.resident - empty.resident, filled.cpu - empty.cpu
            self._tell(f"each order: {growth / count:,.0f} octets of memory, {cpu / count * 1e6:.0f} us of CPU")
            swept = await self._swept(etcd, expired) if expired else None
        most = peak(command_of(self._server.guard))
        lists, unlimited = await asyncio.to_thread(listed, self._audit)
        return Retained(orders, empty, filled, lists, unlimited, swept, most)

    async def _fill(self, etcd: Etcd, orders: int, expired: int) -> None:
        """Write the orders while nobody has to hear of each, which would take the API server longer than anything."""
        await asyncio.to_thread(self._server.stop)
        await asyncio.to_thread(self._cluster.stop_apiserver)
        first, begun = await etcd.first(), time.perf_counter()
        await etcd.write(copies(first, orders))
        await etcd.write(copies(first, expired, expired=True))
        seconds = time.perf_counter() - begun
        self._tell(f"{orders + expired:,} orders of {len(msgspec.json.encode(first)):,} octets in {seconds:.0f} s")
        await asyncio.to_thread(self._cluster.start_apiserver)

    async def _started(self, what: str) -> Started:
        """Start the server anew when the control plane has done what it has to do with what was written."""
        await asyncio.to_thread(self._server.stop)
        await self._quiet()
        plane = self._processes()
        seen = await asyncio.to_thread(started, self._server, plane)
        self._tell(
            f"{what}: ready after {seen.seconds:.1f} s ({seen.cpu:.1f} s of CPU, and {seen.plane:.1f} s of the control"
            f" plane's), {seen.resident / 1e6:.0f} MB resident, {seen.peak / 1e6:.0f} MB at most;"
            f" others used {seen.others:.1f} cores meanwhile"
        )
        return seen

    def _processes(self) -> dict[str, int]:
        return {name: component_pid(self._plane, name) for name in ("kube-apiserver", "etcd")}

    async def _quiet(self) -> None:
        """Wait until the API server has all orders in its cache, and nothing more to do."""
        deadline = time.monotonic() + PATIENCE
        await asyncio.to_thread(self._cached, deadline)
        plane, before = self._processes(), -1.0
        while time.monotonic() < deadline:
            now = _cpu(plane)
            if before >= 0 and now - before < QUIET:
                return
            before = now
            await asyncio.sleep(1.0)
        self._tell(f"the control plane is still busy after {PATIENCE:.0f} s: what follows takes longer for it")

    def _cached(self, deadline: float) -> None:
        while not self._is_cached() and time.monotonic() < deadline:
            time.sleep(1.0)

    def _is_cached(self) -> bool:
        """Whether orders can be watched, which is refused as long as the API server reads them from etcd."""
        orders = "/apis/pki.kms.hanzo.ai/v1alpha1/acmeorders"
        try:
            version = json.loads(self._cluster.kubectl("get", "--raw", f"{orders}?limit=1"))["metadata"][
                "resourceVersion"
            ]
            self._cluster.kubectl("get", "--raw", f"{orders}?watch=true&timeoutSeconds=1&resourceVersion={version}")
        except CommandFailed:
            return False
        return True

    async def _swept(self, etcd: Etcd, expired: int) -> float:
        """Wait until the expired orders are gone; how many a second went once the first ones had gone."""
        limit = PATIENCE + expired / SLOWEST
        deadline, begun = time.monotonic() + limit, time.perf_counter()
        while left := await etcd.count(EXPIRED):
            if left == expired:
                begun = time.perf_counter()
            if time.monotonic() > deadline:
                end = self._server.end_of_log()
                raise TimeoutError(f"{left} of {expired} expired orders are there after {limit:.0f} s.\n{end}")
            await asyncio.sleep(POLL)
        rate = expired / (time.perf_counter() - begun)
        self._tell(f"sweep: {expired:,} expired orders went at {rate:.1f} a second, {rate * 3600:,.0f} an hour")
        return rate


def started(server: Server, plane: dict[str, int]) -> Started:
    """Start a server and see how it comes up. `plane` are the processes that work for it."""
    begun, busy, before = time.perf_counter(), machine(), _cpu(plane)
    server.start()
    server.wait_until_ready(PATIENCE)
    seconds, busy, used = time.perf_counter() - begun, machine() - busy, _cpu(plane) - before
    pid = command_of(server.guard)
    usage = usages({SERVER: pid})[SERVER]
    return Started(seconds, usage.cpu, used, usage.resident, peak(pid), max(busy - used - usage.cpu, 0.0) / seconds)


def _cpu(pids: dict[str, int]) -> float:
    return sum(usage.cpu for usage in usages(pids).values())


def listed(audit: AuditLog) -> tuple[int, tuple[str, ...]]:
    """How many lists our server has asked for, and the URIs of those that could have become any length."""
    user = f"serviceaccount:{RELEASE}:kms-acme-server"
    lists = [each.uri for each in audit.requests(user=user) if each.verb == "list"]
    return len(lists), tuple(uri for uri in lists if "limit" not in parse_qs(urlsplit(uri).query))


async def one_certificate(target: Target) -> None:
    """Have the server write an order that can be copied."""
    async with AsyncExitStack() as stack:
        answerer = http01.Answerer()
        await stack.enter_async_context(http01.listening(answerer, port=target.http_port))
        await stack.enter_async_context(dns.listening(dns.Zone(ZONE), port=target.dns_port))
        account = await stack.enter_async_context(client(target))
        await account.register(external_account=target.external_account)
        await account.obtain([f"first.{ZONE}"], answerer.add)


def measure(folder: Path, progress: Progress, *, orders: int, expired: int, tell: Tell) -> Retained:
    """Do all of it on a cluster of its own, whose files are in this folder.

    Raises:
        SetUpFailed, ProgramFailed, ClusterError: if something does not come up.
        TimeoutError: if the expired orders do not go.
    """
    with running(folder / "cluster", progress) as cluster:
        install(cluster)
        with running_programs(cluster, folder) as programs:
            target = configured(cluster, programs, plane=folder / "cluster")
            measuring = Measuring(cluster, programs, target, plane=folder / "cluster", tell=tell)
            return asyncio.run(measuring.run(orders=orders, expired=expired))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--orders", type=click.IntRange(1), default=20_000, show_default=True, help="Orders with certificates.")
@click.option("--expired", type=click.IntRange(0), default=500, show_default=True, help="Orders to be swept besides.")
@click.option("--check", is_flag=True, help="Exit with 1 if a promise of the project was missed.")
def main(orders: int, expired: int, *, check: bool) -> None:
    """Measure how a server starts, and what it holds in memory, where the cluster holds many orders."""
    progress = Progress(sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix="kms-acme-retained-") as name:
            seen = measure(Path(name), progress, orders=orders, expired=expired, tell=click.echo)
    except (ClusterError, SetUpFailed, ProgramFailed, TimeoutError, aiohttp.ClientError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"\n{verdicts(seen.promises())}")
    sys.exit(1 if check and not all(kept for _, kept in seen.promises()) else 0)


if __name__ == "__main__":
    main(prog_name="python -m e2e.load.retained")
