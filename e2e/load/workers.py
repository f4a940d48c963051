"""`python -m e2e.load.workers`: what a server with several workers completes, and what an order costs it."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click
import uvloop

from e2e.cluster import ClusterError, Progress, running
from e2e.cluster.install import install
from e2e.load.cpulimit import CannotLimit, limited
from e2e.load.measure import CLIENT, SERVER, Measurement, Plan, Target, measure
from e2e.load.processes import cores, family, interpreter, processor, read_stats
from e2e.load.report import requests_per_order, verdicts
from e2e.load.scenario import SetUpFailed, configure, guarded_pid
from e2e.load.sizes import ascending
from e2e.load.tables import markdown, ratio, spread
from e2e.support.programs import ProgramFailed, Programs, running_programs

HELP = """Measure a server with several workers (--workers), beside one with a single worker.

It starts a Kubernetes control plane and the operator. In each round, it starts a server with each number of workers,
one after another, and gives it the same load. A worker may use --share of one core, so that the workers are the
bottleneck even on a small machine, as if API server, etcd and clients had other machines. The limit needs root.

The goal, 1.6 times the orders with two workers, is about workers that are the bottleneck. So it is only judged if two
workers together may use at most a quarter of the machine: with two cores, --share 0.25 or less. With more, API server,
etcd and clients take the cores that the second worker would need, and the table shows how fast these are.

\b
Columns: orders per second, and CPU of all workers per order, relative to the first number of workers, with the lowest
and the highest of the rounds; the share of the busiest worker in the CPU of all; API reads per order.

\b
Examples:
  python -m e2e.load.workers                          about five minutes
  python -m e2e.load.workers --workers 1,2,4 --share 0.15
  python -m e2e.load.workers --share 1                no limit, no root; a goal with eight cores or more

Exit codes: 0 for success; 1 if orders failed, if the measurement failed, or, with --check, if the goal was missed;
2 for wrong usage, also for --check where the goal is not judged."""

MOST_WORKERS = 8
GOAL_WORKERS, GOAL, GOAL_PART = 2, 1.6, 0.25
"""Performance target: orders per second of two workers, relative to one, if they are the bottleneck: together, they may
use this part of the machine at most. The other processes use almost twice what servers use."""


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of a number of workers in one round; CPU in seconds per order, `busiest` as a share of all CPU."""

    rate: float
    cpu: float
    client: float
    busiest: float
    reads: float


Rows = Mapping[int, list[Row]]


def row(result: Measurement, workers: Sequence[str]) -> Row:
    """The figures of a measurement; `workers` are the names of their processes.

    Raises:
        SetUpFailed: if orders failed.
    """
    if result.tally.errors:
        raise SetUpFailed(f"orders failed: {dict(result.tally.errors)}")
    orders, cpu = result.tally.orders, [result.cpu[each] for each in workers]
    return Row(
        rate=orders / result.tally.seconds,
        cpu=sum(cpu) / orders,
        client=result.cpu[CLIENT] / orders,
        busiest=max(cpu) / sum(cpu),
        reads=requests_per_order(result.api or {}, orders)["reads"],
    )


@contextmanager
def serving(programs: Programs, target: Target, workers: int, share: float) -> Iterator[Target]:
    """A server with so many workers, each limited to a share of a core.

    Raises:
        ProgramFailed, SetUpFailed: if it does not start.
        CannotLimit: if the kernel does not limit its CPU.
    """
    server = programs.add_server(workers=workers)
    try:
        server.wait_until_ready()
        pids = worker_pids(guarded_pid(server.guard), workers)
        named = {f"worker {number}": pid for number, pid in enumerate(pids)}
        others = {name: pid for name, pid in target.pids.items() if name != SERVER}
        found = replace(target, servers=(server.url,), pids=named | others)
        if share < 1:
            with limited(pids, share):
                yield found
        else:
            yield found
    finally:
        programs.remove_server(server)


def worker_pids(pid: int, workers: int) -> list[int]:
    """The processes of the workers of a server; a single worker is the server itself.

    Raises:
        SetUpFailed: if there are others than expected.
    """
    if workers == 1:
        return [pid]
    found = sorted(family(pid, read_stats()) - {pid})
    if len(found) != workers:
        raise SetUpFailed(f"{len(found)} processes instead of {workers} workers")
    return found


def measured(
    folder: Path, progress: Progress, *, numbers: Sequence[int], share: float, rounds: int, plan: Plan
) -> Rows:
    """Measure all numbers of workers in each round, and begin each round with another one.

    Raises:
        ClusterError, SetUpFailed, ProgramFailed: if something does not start, or orders fail.
        CannotLimit: if the kernel does not limit the CPU of workers.
    """
    rows: dict[int, list[Row]] = {number: [] for number in numbers}
    with running(folder / "cluster", progress) as cluster:
        install(cluster)
        with running_programs(cluster, folder) as programs:
            target = configure(cluster, programs, plane=folder / "cluster")
            programs.server.stop()
            for each in range(rounds):
                turn = each % len(numbers)
                for number in (*numbers[turn:], *numbers[:turn]):
                    progress.say(f"round {each + 1} of {rounds}, {number} worker{'s'[: number > 1]}")
                    with serving(programs, target, number, share) as served:
                        result = uvloop.run(measure(served, plan))
                        rows[number].append(row(result, [name for name in served.pids if name.startswith("worker ")]))
    return rows


def relative(rows: Rows, number: int, figure: str) -> list[float | None]:
    """A figure of this number of workers in each round, relative to the first number."""
    base, *_ = rows.values()
    return [ratio(getattr(own, figure), getattr(first, figure)) for own, first in zip(rows[number], base, strict=True)]


def table(rows: Rows) -> str:
    """A row for each number of workers."""
    head = ("workers", "orders/s", "CPU of all workers per order", "client CPU", "share of the busiest", "API reads")
    lines = [
        (
            str(number),
            *(spread(relative(rows, number, each)) for each in ("rate", "cpu", "client")),
            spread(each.busiest for each in found),
            spread(each.reads for each in found),
        )
        for number, found in rows.items()
    ]
    return markdown([head, *lines])


def why_no_goal(numbers: Sequence[int], *, share: float, available: int) -> str | None:
    """Why the performance target says nothing about these numbers of workers on so many cores; None: it does."""
    if numbers[0] != 1 or GOAL_WORKERS not in numbers:
        return f"the goal compares {GOAL_WORKERS} workers with one: --workers 1,{GOAL_WORKERS}"
    most = min(1.0, GOAL_PART * available / GOAL_WORKERS)
    if share > most:
        return (
            f"with {share:g} cores each on a machine with {available}, the workers are not the bottleneck;"
            f" the goal needs --share {most:g} or less"
        )
    return None


def goals(rows: Rows) -> list[tuple[str, bool]]:
    """The performance target of two workers beside one, both of which were measured, and whether it was met."""
    rates = [each for each in relative(rows, GOAL_WORKERS, "rate") if each is not None]
    times = statistics.median(rates)
    return [(f"{GOAL_WORKERS} workers complete at least {GOAL:g} times the orders of one: {times:.2f}", times >= GOAL)]


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--workers",
    "numbers",
    callback=ascending(MOST_WORKERS),
    default="1,2",
    show_default=True,
    metavar="N,N",
    help="Numbers of workers to compare.",
)
@click.option(
    "--share",
    type=click.FloatRange(0.05, 1),
    default=0.25,
    show_default=True,
    help="CPU that each worker may use, in cores. 1: no limit, and no root.",
)
@click.option("--orders", type=click.IntRange(10), default=300, show_default=True, help="Orders of a row in a round.")
@click.option("--rounds", type=click.IntRange(1, 50), default=4, show_default=True, help="Rounds.")
@click.option(
    "--clients",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Orders in flight at once, each over connections of its own: the kernel spreads connections over workers.",
)
@click.option("--check", is_flag=True, help="Exit with 1 if the goal was missed.")
def main(*, numbers: tuple[int, ...], share: float, orders: int, rounds: int, clients: int, check: bool) -> None:
    """Measure and print the table."""
    if not numbers:
        raise click.BadParameter("give at least one number of workers", param_hint="--workers")
    unjudged = why_no_goal(numbers, share=share, available=cores())
    if check and unjudged:
        raise click.BadParameter(unjudged, param_hint="--check")
    plan = Plan(orders=orders, clients=clients, accounts=clients, warm_up=2 * clients, floor=False)
    progress = Progress(sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix="kms-acme-workers-") as name:
            rows = measured(Path(name), progress, numbers=numbers, share=share, rounds=rounds, plan=plan)
    except (CannotLimit, ClusterError, SetUpFailed, ProgramFailed, TimeoutError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{cores()} cores of {processor()}, Python {interpreter()}")
    ones = next(iter(rows.values()))
    limit = "no limit of CPU" if share >= 1 else f"each worker may use {share:g} cores"
    click.echo(f"{rounds} rounds of {orders} orders by {clients} clients; {limit}")
    click.echo(f"1 stands for {statistics.median(each.rate for each in ones):.1f} orders/s\n")
    told = [] if unjudged else goals(rows)
    click.echo(f"{table(rows)}\n\n{verdicts(told) or f'No goal: {unjudged}.'}")
    sys.exit(1 if check and not all(kept for _, kept in told) else 0)


if __name__ == "__main__":
    main(prog_name="python -m e2e.load.workers")
