"""`python -m e2e.load`: measures what an order costs."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import click
import uvloop

from e2e.cluster import ClusterError, Progress
from e2e.load import replicas, rows, scenario
from e2e.load.client import Refused
from e2e.load.exchange import ProtocolError
from e2e.load.keys import ExternalAccount
from e2e.load.measure import Measurement, Plan, Target, measure
from e2e.load.processes import cores, processor
from e2e.load.report import Machine, document, promises, table, verdicts
from e2e.load.solvers import CHALLENGES, HTTP01
from e2e.support.programs import ProgramFailed

HELP = """Measure an ACME server: orders a second, latency by step, CPU, memory and API requests an order.

Without --external-directory it starts a Kubernetes control plane, the operator and the server, applies a profile and a
credential, opens accounts, orders certificates, and takes all down again. Nothing is left behind and no root is needed.
The first run builds the control plane, which takes some minutes.

Beside the load it measures the floor: what a bare order (nine HTTPS requests with a signature to verify, three API
writes, one HTTP-01 fetch, one request checked, one certificate signed) costs a server that does nothing else. Then come
short measurements, a row each: every type of challenge with one name and with ten, and renewals that replace a
certificate (RFC 9773) while its authorizations are valid. Last comes the same load on several servers behind a
balancer, and what keeps them from doing more.

\b
Examples:
  python -m e2e.load                                  2,000 orders at 8 clients, and the rows: about ten minutes
  python -m e2e.load --orders 200 --warm-up 20        a first look
  python -m e2e.load --challenge dns-01 --rows 0      one type of challenge, no rows but those of several servers
  python -m e2e.load --rows 0 --servers 0             nothing but the main measurement
  python -m e2e.load --names 10 --json figures.json   ten names an order
  python -m e2e.load --external-directory https://localhost:14000/dir --ca pebble.minica.pem \\
      --http01-port 5002 --dns-port 8053 --pid server=$(pgrep pebble)
                                                      another server, which must ask 127.0.0.1:8053 for names and
                                                      validate at port 5002

Exit codes: 0; 1 if orders failed or nothing could be measured, with --check also if a promise of the project was
missed; 2 for wrong usage."""


MOST_SERVERS = 9


def pid(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """NAME=PID, several times."""
    found = {}
    for value in values:
        name, _, number = value.partition("=")
        if not name or not number.isdecimal():
            raise click.BadParameter(f"{value!r} is not of the form NAME=PID, as in server=4711")
        found[name] = int(number)
    return found


def counts(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Numbers with commas between them, without those that are 0."""
    try:
        found = tuple(int(each) for each in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not of the form N,N, as in 1,2,3") from error
    if not all(0 <= each <= MOST_SERVERS for each in found):
        raise click.BadParameter(f"{value!r}: each is a number of servers from 0 to {MOST_SERVERS}")
    return tuple(filter(None, found))


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--orders", type=click.IntRange(1), default=2000, show_default=True, help="Orders to measure.")
@click.option("--clients", type=click.IntRange(1), default=8, show_default=True, help="Orders in flight at once.")
@click.option("--accounts", type=click.IntRange(1), help="Accounts that take turns. Default: one a client.")
@click.option("--names", type=click.IntRange(1, 100), default=1, show_default=True, help="Names of each order.")
@click.option("--warm-up", type=click.IntRange(0), default=200, show_default=True, help="Orders before, not counted.")
@click.option(
    "--challenge", type=click.Choice(CHALLENGES), default=HTTP01, show_default=True, help="How to prove names."
)
@click.option("--renewal", is_flag=True, help="Measure renewals of certificates that were just obtained.")
@click.option("--rows", type=click.IntRange(0), default=200, show_default=True, help="Orders of each row; 0: no rows.")
@click.option(
    "--servers",
    callback=counts,
    default="1,2,3",
    show_default=True,
    metavar="N,N",
    help="A row for so many servers behind a balancer, each; 0: none.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
@click.option("--check", is_flag=True, help="Exit with 1 if a promise of the project was missed.")
@click.option("--external-directory", metavar="URL", help="Drive the ACME server that has this directory.")
@click.option("--kid", help="EAB key identifier, for --external-directory.")
@click.option("--hmac", help="EAB key, base64url, goes with --kid.")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="What to trust, PEM.")
@click.option("--http01-port", type=click.IntRange(1, 65535), default=5002, show_default=True, help="We answer there.")
@click.option("--dns-port", type=click.IntRange(1, 65535), default=8053, show_default=True, help="Likewise, UDP.")
@click.option("--tls-alpn01-port", type=click.IntRange(1, 65535), default=5001, show_default=True, help="Likewise.")
@click.option("--pid", "pids", callback=pid, multiple=True, metavar="NAME=PID", help="Watch this process. Repeatable.")
def main(orders: int, clients: int, accounts: int | None, names: int, warm_up: int, **options: Any) -> None:
    """Run all measurements."""
    kind = {"challenge": options["challenge"], "renewal": options["renewal"]}
    floor = kind == {"challenge": HTTP01, "renewal": False}  # which is what a bare order is made of
    plan = Plan(
        orders=orders, clients=clients, accounts=accounts or clients, names=names, warm_up=warm_up, floor=floor, **kind
    )
    machine = Machine(cores=cores(), processor=processor(), python=platform.python_version())
    try:
        with target(options) as found:
            body = document(uvloop.run(measure(found, plan)), machine)
            click.echo(table(body))
            further = rows.plans(plan, orders=options["rows"]) if options["rows"] and found.requests else ()
            bodies = [document(uvloop.run(measure(found, each)), machine) for each in further]
            several = [
                document(measured, machine) for measured in behind_a_balancer(found, plan, counts=options["servers"])
            ]
    except (
        ClusterError,
        scenario.SetUpFailed,
        ProgramFailed,
        Refused,
        ProtocolError,
        aiohttp.ClientError,
        OSError,
    ) as error:
        raise click.ClickException(str(error)) from error
    if bodies:
        click.echo(f"\n{rows.table(bodies)}")
    if several:
        click.echo(f"\n{replicas.table(several)}")
    told = [*promises(body), *rows.promises(bodies), *replicas.promises(several)]
    if options["external_directory"] is None:
        click.echo(f"\n{verdicts(told)}")
    if options["json_file"] is not None:
        everything = {**body, "rows": bodies, "servers": several}
        options["json_file"].write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    missed = options["check"] and not all(kept for _, kept in told)
    sys.exit(1 if any(each["errors"] for each in (body, *bodies, *several)) or missed else 0)


def behind_a_balancer(found: Target, plan: Plan, *, counts: Iterable[int]) -> Iterator[Measurement]:
    """The same load on so many servers of ours, one measurement after the other."""
    if found.replicas is None:
        return
    for count in counts:
        with found.replicas(count) as servers:
            yield uvloop.run(measure(servers, replace(plan, floor=False)))


@contextmanager
def target(options: dict[str, Any]) -> Iterator[Target]:
    """Our own server, or the one that was named."""
    if (options["kid"] is None) != (options["hmac"] is None):
        raise click.UsageError("--kid and --hmac go together: give both or neither.")
    if options["external_directory"] is None:
        with scenario.ours(Progress(sys.stderr)) as found:
            yield found
        return
    try:
        account = None if options["kid"] is None else ExternalAccount.parse(options["kid"], options["hmac"])
    except ValueError as error:
        raise click.BadParameter("this is not base64url", param_hint="--hmac") from error
    yield scenario.external(
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
