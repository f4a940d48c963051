"""`python -m e2e.load.retained`: measure a server on a cluster with many orders.

It orders one certificate and copies its ACMEOrder directly in etcd, since the API server would take many minutes. Then
it starts a server and measures the time until it is ready, its memory, and the rate at which garbage collection removes
orders whose certificates have expired.
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
from e2e.load.processes import machine, peak_memory, usages
from e2e.load.report import verdicts
from e2e.load.scenario import SetUpFailed, component_pid, configure, guarded_pid
from e2e.support import dns, http01
from e2e.support.programs import RELEASE, ProgramFailed, Programs, Server, running_programs

READY_LIMIT = 30.0
READY_MEMORY_LIMIT, MEMORY_LIMIT = 350e6, 400e6
SWEEP_LIMIT = 10_000 / 3600
"""Performance targets with 100,000 orders: seconds until a server is ready, its memory then and its peak memory in
bytes, and orders removed per second, for 10,000 that expire in an hour."""

HELP = """Measure a server on a cluster with many orders: start-up time, memory, and garbage collection.

It starts a Kubernetes control plane, the operator and a server, orders one certificate, and copies its order directly
in etcd. Then it starts the server again, and measures the time until it is ready, its memory, and the rate at which
garbage collection deletes the expired orders. It needs no root and leaves nothing behind.

The default takes about one minute, and 1 GB of memory for the API server: 4 to 7 GB with --orders 100000. With
--expired 10000, garbage collection takes about ten minutes. --quiet adds its seconds.

\b
Examples:
  python -m e2e.load.retained                                       about one minute
  python -m e2e.load.retained --orders 100000 --expired 10000       as in docs/performance.md
  python -m e2e.load.retained --orders 100000 --quiet 660 --check   eleven minutes without writes before the start

Exit codes: 0 for success; 1 if the measurement failed, or, with --check, if a goal was missed; 2 for wrong usage."""

PATIENCE = 420.0
"""Time limit for the start of a server, in seconds."""
SLOWEST = 5.0
"""The measurement of garbage collection is aborted below this rate, in orders per second."""
QUIET = 0.1
"""The control plane counts as idle if it uses fewer cores than this."""
POLL = 0.5

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Started:
    """The start of a server: seconds until it was ready, CPU seconds, and its resident and peak memory in bytes.

    `plane` is the CPU time of the control plane meanwhile, `others` the number of cores that other processes used.
    """

    seconds: float
    cpu: float
    plane: float
    resident: int
    peak: int
    others: float


@dataclass(frozen=True, slots=True)
class Retained:
    """The results. `lists` is the number of list requests of the server, `unlimited` the URIs of those without a limit.

    `swept` is the rate of garbage collection in orders per second, `peak` the peak memory of the server in bytes.
    """

    orders: int
    empty: Started
    filled: Started
    lists: int
    unlimited: tuple[str, ...]
    swept: float | None = None
    peak: int = 0

    def promises(self) -> list[tuple[str, bool]]:
        """The performance targets, and whether each was met."""
        octets, resident = max(self.filled.peak, self.peak), self.filled.resident
        kept = [
            (f"ready within {READY_LIMIT:.0f} s: {self.filled.seconds:.1f} s", self.filled.seconds < READY_LIMIT),
            (
                f"at most {READY_MEMORY_LIMIT / 1e6:.0f} MB of memory when ready: {resident / 1e6:.0f} MB",
                resident < READY_MEMORY_LIMIT,
            ),
            (f"at most {MEMORY_LIMIT / 1e6:.0f} MB of memory: {octets / 1e6:.0f} MB", octets < MEMORY_LIMIT),
            (f"every list has a limit: {self.lists - len(self.unlimited)} of {self.lists}", not self.unlimited),
        ]
        if self.swept is not None:
            text = f"garbage collection removes {SWEEP_LIMIT:.1f} orders per second: {self.swept:.1f}"
            kept.append((text, self.swept >= SWEEP_LIMIT))
        return kept


class Measuring:
    """Measures a server. `plane` is the folder of its cluster; `tell` prints progress."""

    def __init__(self, cluster: Cluster, programs: Programs, target: Target, *, plane: Path, tell: Tell) -> None:
        self._server = programs.server
        self._cluster = cluster
        self._audit = cluster.audit()
        self._target = target
        self._plane = plane
        self._tell = tell

    async def run(self, *, orders: int, expired: int, quiet: float = 0.0) -> Retained:
        """Fill the cluster, write no order for `quiet` seconds, start a server, and measure its garbage collection."""
        empty = await self.restart("no orders")
        await one_certificate(self._target)
        async with aiohttp.ClientSession() as session:
            etcd = Etcd(session, self._cluster.etcd_url)
            await self.fill(etcd, orders, expired)
            count = await etcd.count()
            if quiet:
                await self._wait_until_idle()
                await asyncio.sleep(quiet)
            filled = await self.restart(f"{count:,} orders")
            growth, cpu = filled.resident - empty.resident, filled.cpu - empty.cpu
            self._tell(f"per order: {growth / count:,.0f} octets of memory, {cpu / count * 1e6:.0f} us of CPU")
            swept = await self._measure_garbage_collection(etcd, expired) if expired else None
        most = peak_memory(guarded_pid(self._server.guard))
        lists, unlimited = await asyncio.to_thread(count_lists, self._audit)
        return Retained(orders, empty, filled, lists, unlimited, swept, most)

    async def fill(self, etcd: Etcd, orders: int, expired: int) -> None:
        """Write the orders while the API server is stopped, since it would have to send each one to its watchers."""
        await asyncio.to_thread(self._server.stop)
        await asyncio.to_thread(self._cluster.stop_apiserver)
        first, begun = await etcd.first(), time.perf_counter()
        await etcd.write(copies(first, orders))
        await etcd.write(copies(first, expired, expired=True))
        seconds = time.perf_counter() - begun
        self._tell(f"{orders + expired:,} orders of {len(msgspec.json.encode(first)):,} octets in {seconds:.0f} s")
        await asyncio.to_thread(self._cluster.start_apiserver)

    async def restart(self, what: str) -> Started:
        """Restart the server when the control plane is idle, and measure its start."""
        await asyncio.to_thread(self._server.stop)
        await self._wait_until_idle()
        plane = self._processes()
        seen = await asyncio.to_thread(measure_start, self._server, plane)
        self._tell(
            f"{what}: ready after {seen.seconds:.1f} s ({seen.cpu:.1f} s of CPU, control plane {seen.plane:.1f} s),"
            f" {seen.resident / 1e6:.0f} MB resident, peak {seen.peak / 1e6:.0f} MB;"
            f" other processes used {seen.others:.1f} cores"
        )
        return seen

    def _processes(self) -> dict[str, int]:
        return {name: component_pid(self._plane, name) for name in ("kube-apiserver", "etcd")}

    async def _wait_until_idle(self) -> None:
        """Wait until the API server has cached all orders and is idle."""
        deadline = time.monotonic() + PATIENCE
        await asyncio.to_thread(self._wait_for_cache, deadline)
        plane, before = self._processes(), -1.0
        while time.monotonic() < deadline:
            now = _cpu(plane)
            if before >= 0 and now - before < QUIET:
                return
            before = now
            await asyncio.sleep(1.0)
        self._tell(f"the control plane is still busy after {PATIENCE:.0f} s; the following durations are too long")

    def _wait_for_cache(self, deadline: float) -> None:
        while not self._is_cached() and time.monotonic() < deadline:
            time.sleep(1.0)

    def _is_cached(self) -> bool:
        """Whether orders can be watched; the API server refuses watches until its cache is filled from etcd."""
        orders = "/apis/pki.kms.hanzo.ai/v1alpha1/acmeorders"
        try:
            version = json.loads(self._cluster.kubectl("get", "--raw", f"{orders}?limit=1"))["metadata"][
                "resourceVersion"
            ]
            self._cluster.kubectl("get", "--raw", f"{orders}?watch=true&timeoutSeconds=1&resourceVersion={version}")
        except CommandFailed:
            return False
        return True

    async def _measure_garbage_collection(self, etcd: Etcd, expired: int) -> float:
        """Wait until the expired orders are gone; the number removed per second since the first removal."""
        limit = PATIENCE + expired / SLOWEST
        deadline, begun = time.monotonic() + limit, time.perf_counter()
        while left := await etcd.count(EXPIRED):
            if left == expired:
                begun = time.perf_counter()
            if time.monotonic() > deadline:
                end = self._server.end_of_log()
                raise TimeoutError(f"{left} of {expired} expired orders are left after {limit:.0f} s.\n{end}")
            await asyncio.sleep(POLL)
        rate = expired / (time.perf_counter() - begun)
        self._tell(f"garbage collection: {expired:,} orders, {rate:.1f} per second, {rate * 3600:,.0f} per hour")
        return rate


def measure_start(server: Server, plane: dict[str, int]) -> Started:
    """Start a server and measure its start. `plane` are the processes of the control plane."""
    begun, busy, before = time.perf_counter(), machine(), _cpu(plane)
    server.start()
    server.wait_until_ready(PATIENCE)
    seconds, busy, used = time.perf_counter() - begun, machine() - busy, _cpu(plane) - before
    pid = guarded_pid(server.guard)
    usage = usages({SERVER: pid})[SERVER]
    others = max(busy - used - usage.cpu, 0.0) / seconds
    return Started(seconds, usage.cpu, used, usage.resident, peak_memory(pid), others)


def _cpu(pids: dict[str, int]) -> float:
    return sum(usage.cpu for usage in usages(pids).values())


def count_lists(audit: AuditLog) -> tuple[int, tuple[str, ...]]:
    """The number of list requests of our server, and the URIs of those without a limit."""
    user = f"serviceaccount:{RELEASE}:kms-acme-server"
    lists = [each.uri for each in audit.requests(user=user) if each.verb == "list"]
    return len(lists), tuple(uri for uri in lists if "limit" not in parse_qs(urlsplit(uri).query))


async def one_certificate(target: Target) -> None:
    """Obtain one certificate, so that there is an order to copy."""
    async with AsyncExitStack() as stack:
        answerer = http01.Answerer()
        await stack.enter_async_context(http01.listening(answerer, port=target.http_port))
        await stack.enter_async_context(dns.listening(dns.Zone(ZONE), port=target.dns_port))
        account = await stack.enter_async_context(client(target))
        await account.register(external_account=target.external_account)
        await account.obtain([f"first.{ZONE}"], answerer.add)


def measure(folder: Path, progress: Progress, *, orders: int, expired: int, tell: Tell, quiet: float = 0.0) -> Retained:
    """Measure on a new cluster with its files in this folder; `quiet` are the seconds without writes before the start.

    Raises:
        SetUpFailed, ProgramFailed, ClusterError: if something does not start.
        TimeoutError: if garbage collection is too slow.
    """
    with running(folder / "cluster", progress) as cluster:
        install(cluster)
        with running_programs(cluster, folder) as programs:
            target = configure(cluster, programs, plane=folder / "cluster")
            measuring = Measuring(cluster, programs, target, plane=folder / "cluster", tell=tell)
            return asyncio.run(measuring.run(orders=orders, expired=expired, quiet=quiet))


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--orders", type=click.IntRange(1), default=20_000, show_default=True, help="Valid orders.")
@click.option("--expired", type=click.IntRange(0), default=500, show_default=True, help="Expired orders.")
@click.option(
    "--quiet",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seconds without writes of orders before the start; after 600, the API server lists pages from etcd.",
)
@click.option("--check", is_flag=True, help="Exit with 1 if a goal was missed.")
def main(orders: int, expired: int, *, quiet: int, check: bool) -> None:
    """Measure and print."""
    progress = Progress(sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix="kms-acme-retained-") as name:
            seen = measure(Path(name), progress, orders=orders, expired=expired, tell=click.echo, quiet=quiet)
    except (ClusterError, SetUpFailed, ProgramFailed, TimeoutError, aiohttp.ClientError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"\n{verdicts(seen.promises())}")
    sys.exit(1 if check and not all(kept for _, kept in seen.promises()) else 0)


if __name__ == "__main__":
    main(prog_name="python -m e2e.load.retained")
