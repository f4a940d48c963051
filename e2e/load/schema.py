"""`python -m e2e.load.schema`: what an order costs the API server, with this schema and with another one."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import click
import msgspec
import uvloop

from e2e.cluster import ClusterError, Progress, running
from e2e.cluster.install import CRDS, install
from e2e.load.copies import Etcd
from e2e.load.goruntime import GoRuntime
from e2e.load.processes import usages
from e2e.load.recording import Write, record, save
from e2e.load.replay import NAMESPACE, Replay, prepare, replaying
from e2e.load.report import columns, verdicts
from e2e.load.scenario import SetUpFailed, component_pid
from e2e.load.schemas import CRD, TRIALS, WRITES, Schema, base_writes, schema
from e2e.load.writes import Endpoint
from e2e.support.programs import ProgramFailed

HELP = """Measure what an order costs the API server: CPU time, and bytes in etcd.

It starts a Kubernetes control plane, the operator and the server, and orders a certificate. Then it repeats the three
writes of that order (create, results of the challenges, certificate) with each schema in turn. Each has an API group of
its own, so one API server serves them all, and a watch, as a server has. CPU time is that of kube-apiserver and etcd
from /proc, so other programs on the machine disturb little.

The API server collects garbage every few rounds, which costs more than a round. So the CPU time of an order is
the lower quartile of the rounds, which have no collection, and its share of all collections by the bytes that it
allocates.

\b
Rows:
  base     the CRD and the writes of --base, by default those before the schema
           was made cheaper (e2e/load/shipped)
  today    crds/acmeorders.yaml and the writes of the server of today
  others   --trial: the base with a part of its schema changed

\b
Columns: CPU of the API server, what it allocates, and CPU of etcd, relative to the base; bytes of an order in etcd: its
last version, and all three; bytes of its requests and answers.

\b
Examples:
  python -m e2e.load.schema                               about three minutes
  python -m e2e.load.schema --trial no-rules --trial no-schema
  python -m e2e.load.schema --save /tmp/today             keep CRD and writes of today as a base
  git archive v0.2.0 crds | tar -x -C /tmp && python -m e2e.load.schema --base /tmp/crds
                                                          another CRD as base; its writes are those of today, since
                                                          the folder has none

Exit codes: 0 for success; 1 if the measurement failed or, with --check, if a goal was missed; 2 for wrong usage."""

SHIPPED = Path(__file__).with_name("shipped")
BASE, TODAY = "base", "today"
_LEAST = 2
"""Rounds that quartiles need."""
APISERVER, ETCD = "kube-apiserver", "etcd"
CPU_GOAL, BYTES_GOAL = 0.7, 0.8
"""Goals: CPU time of the API server and bytes in etcd of an order, relative to the base."""


@dataclass(slots=True)
class Row:
    """The figures of a schema: CPU seconds an order of each round, and bytes an order in etcd.

    `allocated` are the bytes an order that the API server allocates, of each round. `stored` are the bytes of the last
    version in etcd, `written` those of all three, `sent` those of requests and answers.
    """

    apiserver: list[float] = field(default_factory=list)
    allocated: list[float] = field(default_factory=list)
    etcd: list[float] = field(default_factory=list)
    stored: int = 0
    written: int = 0
    sent: int = 0

    def cpu(self, collection: float) -> float:
        """CPU seconds of the API server an order, where collecting an allocated byte costs `collection` seconds."""
        quiet, _, _ = statistics.quantiles(self.apiserver, n=4)
        return quiet + collection * statistics.median(self.allocated)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured: a row for each schema, and the CPU seconds of collecting an allocated byte."""

    rows: dict[str, Row]
    collection: float

    def cpu(self, name: str) -> float:
        """The CPU time of the API server with this schema, relative to the base."""
        return self.rows[name].cpu(self.collection) / self.rows[BASE].cpu(self.collection)

    def allocated(self, name: str) -> float:
        """The bytes that the API server allocates with this schema, relative to the base."""
        own, base = (statistics.median(self.rows[each].allocated) for each in (name, BASE))
        return own / base


class Measuring:
    """Runs the rounds."""

    def __init__(self, etcd: Etcd, pids: dict[str, int], replays: dict[str, Replay]) -> None:
        self._etcd = etcd
        self._pids = pids
        self._replays = replays
        self.rows = {name: Row() for name in replays}

    async def sizes(self, schemas: Sequence[Schema]) -> None:
        """Measure the bytes of each version in etcd."""
        for each in schemas:
            row, replay = self.rows[each.name], self._replays[each.name]
            for versions in (1, 2, 3):
                before = replay.octets
                name = await replay.order(versions)
                if name is None:
                    raise click.ClickException("the API server is too busy; try again when the machine is not")
                row.sent = replay.octets - before
                row.stored = await self._etcd.size(f"{each.prefix}{NAMESPACE}/{name}")
                row.written += row.stored

    async def rounds(self, rounds: int, orders: int) -> float:
        """Write `orders` orders with each schema in each round, after a round that does not count.

        Returns the CPU seconds of collecting an allocated byte.

        Raises:
            click.ClickException: if the API server refuses a write, or is too busy.
        """
        names = list(self._replays)
        runtime = self._replays[names[0]].runtime
        at_first = await runtime()
        for number in range(rounds + 1):
            turn = number % len(names)
            unused = (await _between(runtime)).allocated
            for name in (*names[turn:], *names[:turn]):
                started, before = await runtime(), usages(self._pids)
                written = await self._replays[name].orders(orders)
                after, allocated = usages(self._pids), (await runtime() - started).allocated - unused
                if number and written:
                    row = self.rows[name]
                    row.apiserver.append((after[APISERVER].cpu - before[APISERVER].cpu) / written)
                    row.etcd.append((after[ETCD].cpu - before[ETCD].cpu) / written)
                    row.allocated.append(max(allocated, 0) / written)
        if any(len(row.apiserver) < _LEAST for row in self.rows.values()):
            raise click.ClickException("the API server aborted most writes; try again when the machine is not busy")
        whole = await runtime() - at_first
        return whole.collecting / whole.allocated


async def _between(runtime: Callable[[], Awaitable[GoRuntime]]) -> GoRuntime:
    """What happens from one reading to the next one, in which nothing else happens."""
    before = await runtime()
    return await runtime() - before


def measure(
    folder: Path, progress: Progress, *, base: Path, trials: Sequence[str], rounds: int, orders: int, saved: Path | None
) -> Figures:
    """Measure on a new cluster with its files in this folder.

    Raises:
        SetUpFailed, ProgramFailed, ClusterError: if something does not start.
    """
    with running(folder / "cluster", progress) as cluster:
        install(cluster)
        progress.say("recording the writes of an order")
        today = record(cluster, folder)
        if saved is not None:
            keep(saved, today)
        writes = base_writes(base, today)
        schemas = [
            schema(0, BASE, base / CRD, writes),
            schema(1, TODAY, CRDS / CRD, today),
            *(schema(at, each, base / CRD, writes, TRIALS[each]) for at, each in enumerate(trials, 2)),
        ]
        endpoint = prepare(cluster, schemas)
        pids = {name: component_pid(folder / "cluster", name) for name in (APISERVER, ETCD)}
        progress.say(f"measuring {len(schemas)} schemas in {rounds} rounds")
        return uvloop.run(_measure(endpoint, cluster.etcd_url, pids, schemas, rounds=rounds, orders=orders))


async def _measure(
    endpoint: Endpoint, etcd_url: str, pids: dict[str, int], schemas: Sequence[Schema], *, rounds: int, orders: int
) -> Figures:
    async with aiohttp.ClientSession() as session, replaying(endpoint, schemas) as replays:
        measuring = Measuring(Etcd(session, etcd_url), pids, replays)
        await measuring.sizes(schemas)
        collection = await measuring.rounds(rounds, orders)
        return Figures(measuring.rows, collection)


def keep(folder: Path, writes: tuple[Write, ...]) -> None:
    """Save the CRD and the writes of today in a folder that --base takes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CRD).write_bytes((CRDS / CRD).read_bytes())
    save(folder / WRITES, writes)


def table(figures: Figures) -> str:
    """A row for each schema: figures relative to the base, and bytes an order."""
    head = ("schema", "API server CPU", "allocated", "etcd CPU", "stored", "relative", "written", "relative", "sent")
    return columns([head, *(_row(name, figures) for name in figures.rows)])


def _row(name: str, figures: Figures) -> tuple[str, ...]:
    row, base = figures.rows[name], figures.rows[BASE]
    return (
        name,
        f"{figures.cpu(name):.2f}",
        f"{figures.allocated(name):.2f}",
        f"{sum(row.etcd) / sum(base.etcd):.2f}",
        f"{row.stored}",
        f"{row.stored / base.stored:.2f}",
        f"{row.written}",
        f"{row.written / base.written:.2f}",
        f"{row.sent}",
    )


def goals(figures: Figures) -> list[tuple[str, bool]]:
    """The goals, and whether each was met."""
    cpu, octets = figures.cpu(TODAY), figures.rows[TODAY].stored / figures.rows[BASE].stored
    return [
        (f"API server CPU an order at most {CPU_GOAL:.2f} of the base: {cpu:.2f}", cpu <= CPU_GOAL),
        (f"bytes an order at most {BYTES_GOAL:.2f} of the base: {octets:.2f}", octets <= BYTES_GOAL),
    ]


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--base",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=SHIPPED,
    help=f"Folder with {CRD} to compare with, and maybe {WRITES}. Default: the one described above.",
)
@click.option("--trial", "trials", type=click.Choice(list(TRIALS)), multiple=True, help="Also measure. Repeatable.")
@click.option("--rounds", type=click.IntRange(2), default=20, show_default=True, help="Rounds that count.")
@click.option("--orders", type=click.IntRange(1), default=64, show_default=True, help="Orders of a schema in a round.")
@click.option(
    "--save", "saved", type=click.Path(file_okay=False, path_type=Path), help="Save CRD and writes of today here."
)
@click.option("--check", is_flag=True, help="Exit with 1 if a goal was missed.")
def main(base: Path, trials: tuple[str, ...], rounds: int, orders: int, saved: Path | None, *, check: bool) -> None:
    """Measure and print the table."""
    if not (base / CRD).exists():
        raise click.BadParameter(f"there is no {CRD} in {base}", param_hint="--base")
    try:
        with tempfile.TemporaryDirectory(prefix="kms-acme-schema-") as name:
            figures = measure(
                Path(name), Progress(sys.stderr), base=base, trials=trials, rounds=rounds, orders=orders, saved=saved
            )
    except (ClusterError, SetUpFailed, ProgramFailed, aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(table(figures))
    told = goals(figures)
    click.echo(f"\n{verdicts(told)}")
    sys.exit(1 if check and not all(kept for _, kept in told) else 0)


if __name__ == "__main__":
    main(prog_name="python -m e2e.load.schema")
