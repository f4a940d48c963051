"""`python -m e2e.load.growth`: how the cost of an order changes with size.

Four groups of rows: names of an order, profiles and namespaces, replicas, and stored orders. Each row has the same
load, and each figure is a ratio to that of the first row of its group.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import click
import uvloop
import yaml

from e2e.cluster import Cluster, ClusterError, Progress, running
from e2e.cluster.install import install
from e2e.load.client import Refused
from e2e.load.copies import Etcd
from e2e.load.exchange import ProtocolError
from e2e.load.measure import CLIENT, SERVER, Plan, Target, measure
from e2e.load.processes import Usage, cores, interpreter, processor, usages
from e2e.load.report import Machine, document
from e2e.load.retained import Measuring, one_certificate
from e2e.load.scenario import MANIFESTS, NAME, SetUpFailed, component_pid, configure, guarded_pid
from e2e.load.sizes import ascending
from e2e.load.tables import markdown, ratio, shown
from e2e.support.programs import ProgramFailed, Programs, running_programs

HELP = """Measure how the cost of an order of kms-acme changes with size.

It starts a Kubernetes control plane, the operator and the server, measures four groups of rows, and stops everything
again. It needs no root and leaves nothing behind.

\b
  --names     DNS names of an order, proven by http-01
  --profiles  profiles, each in a namespace of its own with its own CA and policy;
              the load is on one of them
  --servers   replicas behind a load balancer
  --stored    orders that are stored already, with their certificates

The first size of a group is the unit of its ratios, except for API requests. CPU is per order; that of the client shows
what a busy machine adds to all CPU: the client does the same in each row, except in those for more names.

\b
Examples:
  python -m e2e.load.growth                                  everything: about eight minutes
  python -m e2e.load.growth --stored 0 --profiles 0          names and replicas only; 0 skips a group
  python -m e2e.load.growth --orders 500 --stored 1,200000   more exact figures, and a larger size

Exit codes: 0 for success; 1 if orders failed, or if the measurement failed; 2 for wrong usage."""

LEAST, LEAST_WARM_UP = 10, 4
"""Orders of a row with many names, and those before it."""
WARM_UP = 16
MOST_NAMES, MOST_PROFILES, MOST_SERVERS = 100, 1000, 9
MOST_STORED = 200_000
NO_LIMITS = (
    f"--maximum-orders={2 * MOST_STORED}",
    "--maximum-order-bytes=2147483648",
    "--namespace-share=100",
    "--account-share=100",
)
"""Options of the server: one account of one namespace has all stored orders."""
QUIET_CORES, QUIET_SECONDS, QUIET_TRIES = 0.2, 3.0, 40
"""A row begins when all processes use less than so many cores together for so many seconds, or after two minutes."""
READY_LIMIT = 900
"""Time limit of the creation of profiles, and until they are ready, in seconds."""

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of each group, ascending."""

    names: Sequence[int] = (1, 10, 100)
    profiles: Sequence[int] = (1, 100, 1000)
    servers: Sequence[int] = (1, 2, 3, 6)
    stored: Sequence[int] = (1, 10_000, 100_000)


@dataclass(frozen=True, slots=True)
class Row:
    """A row: the title of its group, its size, and the document of its measurement (see report.document)."""

    group: str
    size: int
    body: Body


class Growth:
    """Measures all rows on one cluster. `plane` is the folder of the cluster; `tell` prints progress."""

    def __init__(
        self, cluster: Cluster, programs: Programs, plane: Path, *, orders: int, tell: Callable[[str], object]
    ) -> None:
        self._cluster = cluster
        self._programs = programs
        self._plane = plane
        self._orders = orders
        self._tell = tell
        self._machine = Machine(cores=cores(), processor=processor(), python=interpreter())
        self._target = configure(cluster, programs, plane=plane)

    def rows(self, sizes: Sizes) -> Iterator[Row]:
        """All rows, group by group."""
        for size in sizes.names:
            yield self._row("names of an order", size, self._target, names=size)
        for size, more in _steps(sizes.profiles, given=1):
            self._add_profiles(more, size)
            yield self._row("profiles and namespaces", size, self._target)
        for size in sizes.servers:
            yield self._with_replicas(size)
        if sizes.stored:
            yield from self._with_stored_orders(sizes.stored)

    def _row(self, group: str, size: int, target: Target, *, names: int = 1) -> Row:
        self._tell(f"{group}: {size:,}")
        wait_until_quiet(target.pids)
        plan = Plan(
            orders=max(LEAST, self._orders // names), names=names, warm_up=max(4, WARM_UP // names), floor=False
        )
        return Row(group, size, document(uvloop.run(measure(target, plan)), self._machine))

    def _add_profiles(self, numbers: Iterable[int], size: int) -> None:
        """Create profiles with these numbers, and wait until all are ready."""
        text = "---\n".join(yaml.safe_dump_all(profile(number)) for number in numbers)
        if text:
            self._tell(f"profiles and namespaces: creating up to {size:,}")
            self._cluster.kubectl("create", "--filename=-", stdin=text, limit=READY_LIMIT)
            ready = ("wait", "--all-namespaces", "--all", "--for=condition=Ready", f"--timeout={READY_LIMIT}s")
            self._cluster.kubectl(*ready, "certificateprofile", limit=READY_LIMIT + 10)

    def _with_replicas(self, count: int) -> Row:
        if self._target.replicas is None:
            raise SetUpFailed("the target has no replicas")
        with self._target.replicas(count) as target:
            return self._row("replicas", count, target)

    def _with_stored_orders(self, sizes: Sequence[int]) -> Iterator[Row]:
        measuring = Measuring(self._cluster, self._programs, self._target, plane=self._plane, tell=self._tell)
        self._programs.server.restart()
        # Orders of the groups before are few beside these.
        uvloop.run(one_certificate(self._target))
        for size, more in _steps(sizes, given=1):
            if more:
                uvloop.run(self._fill(measuring, len(more)))
            asyncio.run(measuring.restart(f"{size:,} orders"))
            yield self._row("stored orders", size, self._renewed())

    async def _fill(self, measuring: Measuring, count: int) -> None:
        async with aiohttp.ClientSession() as session:
            await measuring.fill(Etcd(session, self._cluster.etcd_url), count, 0)

    def _renewed(self) -> Target:
        """The target with the processes of today."""
        plane = {name: component_pid(self._plane, name) for name in ("kube-apiserver", "etcd")}
        pids = {**self._target.pids, **plane, SERVER: guarded_pid(self._programs.server.guard)}
        return replace(self._target, pids=pids)


def wait_until_quiet(
    pids: Mapping[str, int],
    *,
    usages: Callable[[Mapping[str, int]], Mapping[str, Usage]] = usages,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until the processes have done what they do after a start or after many writes, but not for ever."""
    before = sum(each.cpu for each in usages(pids).values())
    for _ in range(QUIET_TRIES):
        sleep(QUIET_SECONDS)
        now = sum(each.cpu for each in usages(pids).values())
        if now - before < QUIET_CORES * QUIET_SECONDS:
            return
        before = now


def profile(number: int) -> list[dict[str, Any]]:
    """The namespace, CA, policy and profile of the load once more, in a namespace with this number."""
    kinds = {"Namespace", "CertificateAuthority", "CertificatePolicy", "CertificateProfile"}
    objects = [each for each in yaml.safe_load_all(MANIFESTS.read_text(encoding="utf-8")) if each["kind"] in kinds]
    name = f"{NAME}-{number}"
    for each in objects:
        each["metadata"].update({"namespace": name} if "namespace" in each["metadata"] else {"name": name})
    return objects


def _steps(sizes: Sequence[int], *, given: int) -> Iterator[tuple[int, range]]:
    """Each size, with the numbers that it has in addition to the one before; `given` exist at the beginning."""
    for size in sizes:
        yield size, range(given, max(size, given))
        given = max(size, given)


def servers(values: Mapping[str, float]) -> list[float]:
    """The values of all our servers."""
    return [value for name, value in values.items() if name.startswith(SERVER)]


def memory(body: Body) -> float | None:
    """Resident memory of the largest server after the row, in MB."""
    return max(servers({name: each["after"] for name, each in body["residentMegabytes"].items()}), default=None)


def cpu(body: Body, name: str) -> float | None:
    """CPU milliseconds per order of a process, or of all servers."""
    used = body["cpuMillisecondsPerOrder"]
    return (sum(servers(used)) or None) if name == SERVER else used.get(name)


def figures(body: Body) -> tuple[float | None, ...]:
    """CPU of servers, API server, etcd and client, and memory of a server."""
    return (*(cpu(body, name) for name in (SERVER, "kube-apiserver", "etcd", CLIENT)), memory(body))


def table(rows: Sequence[Row]) -> str:
    """Each row as ratios to the first one of its group; API requests are per order."""
    head = (
        *("size", "CPU of all servers", "CPU of the API server", "CPU of etcd", "CPU of the client"),
        *("memory of a server", "writes", "reads"),
    )
    first: dict[str, Row] = {}
    lines: list[Sequence[str]] = [head]
    for row in rows:
        base = figures(first.setdefault(row.group, row).body)
        ratios = [ratio(value, unit) for value, unit in zip(figures(row.body), base, strict=True)]
        cells = ["1" if first[row.group] is row and each is not None else shown(each) for each in ratios]
        api = row.body["apiRequestsPerOrder"] or {}
        requests = [f"{api[each]:g}" if each in api else "" for each in ("writes", "reads")]
        lines.append((f"{row.group}: {row.size:,}", *cells, *requests))
    return markdown(lines)


def units(rows: Sequence[Row]) -> list[str]:
    """What 1 stands for in each group."""
    first = {row.group: row for row in reversed(rows)}
    forms = ("servers {:.1f} ms", "API server {:.1f} ms", "etcd {:.1f} ms", "client {:.1f} ms", "memory {:.0f} MB")
    return [
        f"1 stands for, {group}: "
        + ", ".join(
            form.format(value) for form, value in zip(forms, figures(row.body), strict=True) if value is not None
        )
        for group, row in reversed(first.items())
    ]


def _sizes(flag: str, most: int, given: Sequence[int], text: str) -> Callable[[Any], Any]:
    default = ",".join(map(str, given))
    return click.option(flag, callback=ascending(most), default=default, show_default=True, metavar="N,N", help=text)


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--orders", type=click.IntRange(1), default=100, show_default=True, help="Orders of a row with one name.")
@_sizes("--names", MOST_NAMES, Sizes().names, "Names of an order.")
@_sizes("--profiles", MOST_PROFILES, Sizes().profiles, "Profiles and namespaces.")
@_sizes("--servers", MOST_SERVERS, Sizes().servers, "Replicas.")
@_sizes("--stored", MOST_STORED, Sizes().stored, "Stored orders.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures to this file."
)
def main(*, orders: int, json_file: Path | None, **sizes: tuple[int, ...]) -> None:
    """Measure all rows and print the table."""
    progress, rows, failure = Progress(sys.stderr), list[Row](), ""
    try:
        with tempfile.TemporaryDirectory(prefix="kms-acme-growth-") as name:
            for row in measured(Path(name), progress, Sizes(**sizes), orders=orders):
                rows.append(row)
    except (
        ClusterError,
        SetUpFailed,
        ProgramFailed,
        Refused,
        ProtocolError,
        TimeoutError,
        aiohttp.ClientError,
        OSError,
    ) as error:
        failure = str(error)  # the rows that were measured before are worth their minutes
    if rows:
        machine = rows[0].body["machine"]
        click.echo(f"{machine['cores']} cores of {machine['processor']}, Python {machine['python']}")
        click.echo("\n".join([*units(rows), "", table(rows)]))
    if json_file is not None:
        text = json.dumps([{"group": row.group, "size": row.size, **row.body} for row in rows], indent=2)
        json_file.write_text(f"{text}\n", encoding="utf-8")
    if failure:
        raise click.ClickException(failure)
    errors = [f"{row.group}: {row.size:,}: {row.body['errors']}" for row in rows if row.body["errors"]]
    for each in errors:
        click.echo(each, err=True)
    sys.exit(1 if errors else 0)


def measured(folder: Path, progress: Progress, sizes: Sizes, *, orders: int) -> Iterator[Row]:
    """Measure all rows on a new cluster with its files in this folder.

    Raises:
        SetUpFailed, ProgramFailed, ClusterError: if something does not start.
    """
    with running(folder / "cluster", progress) as cluster:
        install(cluster)
        with running_programs(cluster, folder, server_options=NO_LIMITS) as programs:
            growth = Growth(cluster, programs, folder / "cluster", orders=orders, tell=progress.say)
            yield from growth.rows(sizes)


if __name__ == "__main__":
    main(prog_name="python -m e2e.load.growth")
