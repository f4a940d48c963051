"""`python -m e2e.load`: measure the cost of an order."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import click
import uvloop

from e2e.cluster import ClusterError, Progress
from e2e.load import compare, ratios, replicas, rows, scenario
from e2e.load.client import Refused
from e2e.load.exchange import ProtocolError
from e2e.load.keys import ExternalAccount
from e2e.load.measure import Measurement, Plan, Target, measure
from e2e.load.peers import PEERS, running_peer
from e2e.load.processes import cores, interpreter, processor
from e2e.load.report import Machine, document, promises, table, verdicts
from e2e.load.solvers import CHALLENGES, HTTP01
from e2e.support.programs import ProgramFailed, Validation
from e2e.support.tools import Missing

HELP = """Measure an ACME server: orders per second, latency of each step; CPU, memory and API requests per order.

By default, it measures kms-acme: it starts a Kubernetes control plane, the operator and the server, orders
certificates, and stops everything again. It needs no root and leaves nothing behind. The first run builds the control
plane, which takes a few minutes. With --external-directory, it measures a running ACME server instead. With --compare,
it measures other ACME servers, too, in turn with kms-acme, and prints ratios.

\b
There are three parts:
  1. The main measurement. It also measures the floor, the minimum CPU time of
     an order: nine HTTPS requests with a signature to verify, three API writes,
     one http-01 fetch, one check of a CSR, one signature of a certificate.
  2. Short measurements, a table row each (--rows): each challenge type with one
     and with ten names, and renewals that replace a certificate (RFC 9773)
     while its authorizations are valid.
  3. The main load on several servers behind a load balancer (--servers), and
     the bottleneck of each.

With --compare, there is one part: rounds in which each server has the same load, one after another, of the same client.
The table has the ratios to the first server of --compare: the median of the rounds, with the lowest and the highest. A
busy machine changes the figures of all servers, but hardly their ratios; where lowest and highest are far apart, or the
CPU of the client differs between servers, measure again with more rounds. The first run builds the other servers, which
takes a few minutes. For size instead of speed, see python -m e2e.load.growth and python -m e2e.load.retained.

\b
Examples:
  python -m e2e.load                                  everything, with 2,000 orders by 8 clients: about ten minutes
  python -m e2e.load --orders 200 --warm-up 20        a first look
  python -m e2e.load --challenge dns-01 --rows 0      one challenge type, without part 2
  python -m e2e.load --rows 0 --servers 0             part 1 only
  python -m e2e.load --names 10 --json figures.json   ten names per order
  python -m e2e.load --compare step-ca,pebble         beside other servers, with 2,000 orders for each, in 4 rounds
  python -m e2e.load --compare step-ca --orders 400 --rounds 8
                                                      less, in more rounds
  python -m e2e.load --external-directory https://localhost:14000/dir --ca pebble.minica.pem \\
      --http01-port 5002 --dns-port 8053 --pid server=$(pgrep pebble)
                                                      Pebble, which must use the DNS server 127.0.0.1:8053
                                                      and validate on port 5002

Exit codes: 0 for success; 1 if orders failed, if the measurement failed, or, with --check, if a performance target was
missed; 2 for wrong usage."""


MOST_SERVERS = 9
FAILURES = (
    ClusterError,
    scenario.SetUpFailed,
    ProgramFailed,
    Missing,
    Refused,
    ProtocolError,
    aiohttp.ClientError,
    OSError,
)
"""What ends a measurement."""


def pid(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """Parse NAME=PID; the option may be repeated."""
    found = {}
    for value in values:
        name, _, number = value.partition("=")
        if not name or not number.isdecimal():
            raise click.BadParameter(f"{value!r} is not of the form NAME=PID, as in server=4711")
        found[name] = int(number)
    return found


def counts(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Parse numbers separated by commas; drop zeros."""
    try:
        found = tuple(int(each) for each in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not of the form N,N, as in 1,2,3") from error
    if not all(0 <= each <= MOST_SERVERS for each in found):
        raise click.BadParameter(f"{value!r}: each must be a number of servers from 0 to {MOST_SERVERS}")
    return tuple(filter(None, found))


def peers(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Parse names of other servers, separated by commas."""
    found = tuple(value.split(",")) if value else ()
    for each in found:
        if each not in PEERS:
            raise click.BadParameter(f"{each!r} is not one of {', '.join(PEERS)}; separate them by commas")
    if len(set(found)) < len(found):
        raise click.BadParameter(f"{value!r} names a server twice")
    return found


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--orders", type=click.IntRange(1), default=2000, show_default=True, help="Orders to measure.")
@click.option("--clients", type=click.IntRange(1), default=8, show_default=True, help="Orders in flight at once.")
@click.option("--accounts", type=click.IntRange(1), help="ACME accounts to share. Default: one per client.")
@click.option("--names", type=click.IntRange(1, 100), default=1, show_default=True, help="DNS names per order.")
@click.option(
    "--warm-up", type=click.IntRange(0), default=200, show_default=True, help="Orders before the measurement."
)
@click.option("--challenge", type=click.Choice(CHALLENGES), default=HTTP01, show_default=True, help="Challenge type.")
@click.option("--renewal", is_flag=True, help="Obtain certificates first, then measure their renewal.")
@click.option(
    "--rows", type=click.IntRange(0), default=200, show_default=True, help="Orders per row of part 2; 0: skip."
)
@click.option(
    "--servers",
    callback=counts,
    default="1,2,3",
    show_default=True,
    metavar="N,N",
    help="Numbers of servers to measure behind a load balancer; 0: skip.",
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures to this file."
)
@click.option("--markdown", is_flag=True, help="Print ratios in Markdown, the tables of docs/performance.md.")
@click.option("--check", is_flag=True, help="Exit with 1 if a performance target was missed.")
@click.option(
    "--compare",
    callback=peers,
    metavar="NAME,NAME",
    help=f"Measure these servers, too, in turn: {', '.join(PEERS)}. The first one is the unit.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 50),
    default=4,
    show_default=True,
    help="Rounds of --compare; they share --orders.",
)
@click.option("--external-directory", metavar="URL", help="Measure the ACME server with this directory URL.")
@click.option("--kid", help="EAB key identifier for --external-directory.")
@click.option("--hmac", help="EAB HMAC key of --kid, base64url.")
@click.option(
    "--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="CA certificates to trust, PEM."
)
@click.option(
    "--http01-port", type=click.IntRange(1, 65535), default=5002, show_default=True, help="Port that answers http-01."
)
@click.option(
    "--dns-port", type=click.IntRange(1, 65535), default=8053, show_default=True, help="UDP port of the DNS server."
)
@click.option(
    "--tls-alpn01-port",
    type=click.IntRange(1, 65535),
    default=5001,
    show_default=True,
    help="Port that answers tls-alpn-01.",
)
@click.option(
    "--pid",
    "pids",
    callback=pid,
    multiple=True,
    metavar="NAME=PID",
    help="Measure the CPU and memory of this process. Repeatable.",
)
def main(orders: int, clients: int, accounts: int | None, names: int, warm_up: int, **options: Any) -> None:
    """Run all measurements."""
    kind = {"challenge": options["challenge"], "renewal": options["renewal"]}
    floor = kind == {"challenge": HTTP01, "renewal": False}  # a bare order is an http-01 order
    plan = Plan(
        orders=orders, clients=clients, accounts=accounts or clients, names=names, warm_up=warm_up, floor=floor, **kind
    )
    machine = Machine(cores=cores(), processor=processor(), python=interpreter())
    if options["compare"]:
        check_comparison(plan, options)
    try:
        with target(options) as found:
            if options["compare"]:
                failed, told, everything = beside_others(found, plan, machine, options)
            else:
                failed, told, everything = alone(found, plan, machine, options)
    except FAILURES as error:
        raise click.ClickException(str(error)) from error
    if options["external_directory"] is None and told:
        click.echo(f"\n{verdicts(told)}")
    if options["json_file"] is not None:
        options["json_file"].write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    missed = options["check"] and not all(kept for _, kept in told)
    sys.exit(1 if failed or missed else 0)


Told = tuple[bool, Sequence[tuple[str, bool]], dict[str, Any]]
"""Whether orders failed, the performance targets and whether each was met, and all figures."""


def alone(found: Target, plan: Plan, machine: Machine, options: dict[str, Any]) -> Told:
    """Run the three parts, and print their tables."""
    body = document(uvloop.run(measure(found, plan)), machine)
    if not options["markdown"]:
        click.echo(table(body))  # before the other parts, which take minutes
    further = rows.plans(plan, orders=options["rows"]) if options["rows"] and found.requests else ()
    bodies = [document(uvloop.run(measure(found, each)), machine) for each in further]
    several = [document(measured, machine) for measured in behind_a_balancer(found, plan, counts=options["servers"])]
    if options["markdown"]:
        click.echo(ratios.tables(body, bodies, several))
    else:
        if bodies:
            click.echo(f"\n{rows.table(bodies)}")
        if several:
            click.echo(f"\n{replicas.table(several)}")
    told = [*promises(body), *rows.promises(bodies), *replicas.promises(several)]
    failed = any(each["errors"] for each in (body, *bodies, *several))
    return failed, told, {**body, "rows": bodies, "servers": several}


def check_comparison(plan: Plan, options: dict[str, Any]) -> None:
    """Refuse what cannot be compared.

    Raises:
        click.UsageError: with an external server, with renewals, or with fewer orders than rounds.
    """
    if options["external_directory"] is not None:
        raise click.UsageError("--compare starts its servers itself: omit it, or --external-directory.")
    if plan.renewal:
        raise click.UsageError("--compare and --renewal exclude each other: step-ca has no renewal information.")
    if plan.orders < options["rounds"]:
        raise click.UsageError(f"--orders {plan.orders} are less than one for each of {options['rounds']} rounds.")


def beside_others(ours: Target, plan: Plan, machine: Machine, options: dict[str, Any]) -> Told:
    """Measure other servers in turn with ours, and print the ratios."""
    ports = Validation(ours.dns_port, ours.http_port, ours.tls_alpn_port)
    with ExitStack() as stack:
        targets = []
        for name in options["compare"]:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"kms-acme-{name}-")))
            targets.append(stack.enter_context(running_peer(name, folder, ports)))
        targets.append(ours)
        progress = Progress(sys.stderr)

        def tell(target: Target, share: Plan) -> Measurement:
            progress.say(f"{target.name}: {share.orders} orders")
            return uvloop.run(measure(target, share))

        turns = compare.in_turn(targets, plan, tell, rounds=options["rounds"])
        rounds = [[document(each, machine) for each in turn] for turn in turns]
    click.echo("\n\n".join([compare.head(rounds), compare.table(rounds), *compare.failures(rounds)]))
    failed = any(body["errors"] for bodies in rounds for body in bodies)
    return failed, compare.promises(rounds, ours.name), {"rounds": rounds}


def behind_a_balancer(found: Target, plan: Plan, *, counts: Iterable[int]) -> Iterator[Measurement]:
    """Measure the same load with each of these numbers of our servers."""
    if found.replicas is None:
        return
    for count in counts:
        with found.replicas(count) as servers:
            yield uvloop.run(measure(servers, replace(plan, floor=False)))


@contextmanager
def target(options: dict[str, Any]) -> Iterator[Target]:
    """Start our own server, or describe the one of --external-directory."""
    if (options["kid"] is None) != (options["hmac"] is None):
        raise click.UsageError("--kid and --hmac go together: give both or neither.")
    if options["external_directory"] is None:
        with scenario.running_target(Progress(sys.stderr)) as found:
            yield found
        return
    try:
        account = None if options["kid"] is None else ExternalAccount.parse(options["kid"], options["hmac"])
    except ValueError as error:
        raise click.BadParameter("not base64url", param_hint="--hmac") from error
    yield scenario.external_target(
        options["external_directory"],
        authority=options["ca"],
        external_account=account,
        http_port=options["http01_port"],
        dns_port=options["dns_port"],
        tls_alpn_port=options["tls_alpn01_port"],
        pids=options["pids"],
    )


if __name__ == "__main__":
    main(prog_name="python -m e2e.load")
