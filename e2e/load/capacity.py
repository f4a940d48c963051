"""`python -m e2e.load.capacity`: how far one cluster goes, calculated from the cost of an order.

The tables of docs/capacity.md are made by this command, with its defaults. Pure but for the output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import click

from e2e.load.tables import markdown

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RENEWED = 2 / 3
"""When clients renew a certificate, as a share of its lifetime."""
KEPT = DAY
"""How long an order is kept after its certificate has expired."""
LIFETIMES = (90 * DAY, 30 * DAY, 7 * DAY)
CERTIFICATES = (10_000, 80_000, 300_000)
STORED_LIMIT, BYTES_LIMIT, PACE = 120_000, 640 * 2**20, timedelta(minutes=10)
"""Defaults of --maximum-orders and --maximum-order-bytes; the latter also limits the writes of orders within PACE."""
RESERVE = 1.1
"""Orders that renew certificates may exceed a limit by a tenth."""
OTHER_MEMORY, MEMORY_STEP = 149 * 2**20, 256 * 2**20
"""What a server needs beside orders and when idle, if everything is at its default limit: accounts, records of
revocations, proofs, cached objects (docs/operations.md, "Sizes"). Its limit is rounded up to a multiple of the step."""
QUOTA, QUOTAS, LARGE_QUOTA = 2, (2, 4, 8), 8
"""The default quota of etcd, and the largest one that its documentation suggests, in GiB."""
SHARE = 0.1
"""A share of one core of the API server that an operator may want to give to orders."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of an order: API writes, milliseconds of CPU of the API server, kB written to etcd.

    `stored` is its size in etcd and `memory` what it takes of a server, both in kB; `idle` is the memory of a server
    without orders in MB. `pace` is the number of orders that server and API server complete per second.
    """

    writes: float = 3
    cpu: float = 9.4
    written: float = 10
    stored: float = 4.2
    memory: float = 2.0
    idle: float = 84
    pace: float = 89


def orders_per_hour(certificates: float, lifetime: timedelta) -> float:
    """Orders that keep this number of certificates valid, evenly spread."""
    return certificates / (lifetime * RENEWED / HOUR)


def stored_orders(certificates: float, lifetime: timedelta) -> float:
    """Orders that are stored for them: each from its creation until KEPT after its certificate has expired."""
    return orders_per_hour(certificates, lifetime) * ((lifetime + KEPT) / HOUR)


def days(lifetime: timedelta) -> str:
    """A lifetime as the tables show it."""
    number = lifetime / DAY
    return f"{number:g} day{'s'[: number != 1]}"


def needs(
    cost: Cost, *, certificates: Sequence[int] = CERTIFICATES, lifetimes: Sequence[timedelta] = LIFETIMES
) -> Iterator[Sequence[str]]:
    """The rows of what certificates need, with their head."""
    yield (
        *("certificates", "lifetime", "orders per hour", "API writes per hour", "etcd writes, MB per hour"),
        *("API server, millicores", "orders stored", "etcd, MB", "memory of a server, MB"),
    )
    for number in certificates:
        for lifetime in lifetimes:
            orders, stored = orders_per_hour(number, lifetime), stored_orders(number, lifetime)
            yield (
                f"{number:,}",
                days(lifetime),
                f"{orders:,.0f}",
                f"{orders * cost.writes:,.0f}",
                f"{orders * cost.written / 1000:,.1f}",
                f"{orders * cost.cpu / 3600:.1f}",
                f"{stored:,.0f}",
                f"{stored * cost.stored / 1000:,.0f}",
                f"{cost.idle + stored * cost.memory / 1000:,.0f}",
            )


def limits(cost: Cost, *, lifetimes: Sequence[timedelta] = LIFETIMES) -> Iterator[Sequence[str]]:
    """The rows of what each limit allows, with their head: first limits of stored orders, then those of their rate."""
    yield "limit", "orders", *(f"certificates of {days(each)}" for each in lifetimes)
    for quota in (QUOTA, LARGE_QUOTA):
        orders = STORED_LIMIT * quota // QUOTA
        certificates = (orders / stored_orders(1, each) for each in lifetimes)
        yield f"stored, etcd with {quota} GiB", f"{orders:,}", *map(_rounded, certificates)
    rates = {
        f"{SHARE:g} cores of the API server": SHARE * 3_600_000 / cost.cpu,
        f"{cost.pace:g} orders per second": cost.pace * 3600,
        "orders written in ten minutes": BYTES_LIMIT / (cost.written * 1000) * (HOUR / PACE),
    }
    for title, rate in rates.items():
        certificates = (rate / orders_per_hour(1, each) for each in lifetimes)
        yield title, f"{rate:,.0f} per hour", *map(_rounded, certificates)


def settings(cost: Cost) -> Iterator[Sequence[str]]:
    """The rows of what to set for each quota of etcd, with their head: its own option, and values of the chart."""
    yield (
        *("etcd", "`--quota-backend-bytes` of etcd", "`server.maximumOrders`", "`server.maximumOrderBytes`"),
        "`server.resources.limits.memory`",
    )
    for quota in QUOTAS:
        orders = STORED_LIMIT * quota // QUOTA
        octets = orders * RESERVE * cost.memory * 1000 + cost.idle * 1_000_000 + OTHER_MEMORY
        memory = math.ceil(octets / MEMORY_STEP) * MEMORY_STEP // 2**20
        yield f"{quota} GiB", f"{quota * 2**30}", f"{orders}", f"{BYTES_LIMIT * quota // QUOTA}", f"{memory}Mi"


def _rounded(number: float) -> str:
    """Two significant digits: the costs have no more."""
    return f"{float(f'{number:.2g}'):,.0f}"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--certificates",
    type=click.IntRange(1),
    multiple=True,
    metavar="N",
    help="Certificates; may be repeated. Default: those of docs/capacity.md.",
)
@click.option(
    "--lifetime",
    type=click.FloatRange(0, 3650, min_open=True),
    multiple=True,
    metavar="DAYS",
    help="Lifetime of the certificates in days; may be repeated. Default: 90, 30 and 7.",
)
@click.option("--writes", type=float, default=Cost().writes, show_default=True, help="API writes of an order.")
@click.option(
    "--cpu", type=float, default=Cost().cpu, show_default=True, help="CPU of the API server per order, in ms."
)
@click.option("--written", type=float, default=Cost().written, show_default=True, help="What an order writes, in kB.")
@click.option("--stored", type=float, default=Cost().stored, show_default=True, help="Its size in etcd, in kB.")
@click.option(
    "--memory", type=float, default=Cost().memory, show_default=True, help="Memory of a server for it, in kB."
)
@click.option("--idle", type=float, default=Cost().idle, show_default=True, help="Memory of an idle server, in MB.")
@click.option("--pace", type=float, default=Cost().pace, show_default=True, help="Orders per second at most.")
def main(*, certificates: tuple[int, ...], lifetime: tuple[float, ...], **figures: Any) -> None:
    """Calculate how far one cluster goes, from the cost of an order.

    It prints what certificates need, what each limit allows, and what to set for an etcd of each size. It measures
    nothing: python -m e2e.load and python -m e2e.load.growth measure the cost on your machine. kB, MB and GB are powers
    of 1,000, GiB those of 1,024.

    \b
    Examples:
      python -m e2e.load.capacity                                        the tables of docs/capacity.md
      python -m e2e.load.capacity --certificates 25000 --lifetime 30     a row of your own
      python -m e2e.load.capacity --cpu 6.5 --written 8                  with costs of your own
    """
    for name, value in figures.items():
        if value <= 0:
            raise click.BadParameter(f"must be more than 0, not {value:g}", param_hint=f"--{name}")
    cost, lifetimes = Cost(**figures), [each * DAY for each in lifetime] or LIFETIMES
    tables = (
        needs(cost, certificates=certificates or CERTIFICATES, lifetimes=lifetimes),
        limits(cost, lifetimes=lifetimes),
        settings(cost),
    )
    click.echo("\n\n".join(map(markdown, tables)))


if __name__ == "__main__":
    main(prog_name="python -m e2e.load.capacity")
