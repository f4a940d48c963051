"""The tables of docs/performance.md: ratios of figures of one run, which other machines and busy ones change little."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from e2e.load import replicas, rows
from e2e.load.drive import ORDER
from e2e.load.measure import CLIENT, SERVER
from e2e.load.replicas import API_SERVER, ETCD
from e2e.load.tables import markdown, ratio, shown

PERCENTILES = ("p50", "p95", "p99")

Body = Mapping[str, Any]
"""The document of a measurement (see report.document)."""


def tables(body: Body, short: Sequence[Body], several: Sequence[Body]) -> str:
    """All tables: the main measurement, the short ones, and those with several servers."""
    found = [steps(body), processes(body), floors(body), challenges(short), servers(several)]
    return "\n\n".join(markdown(each) for each in found if len(each) > 1)


def steps(body: Body) -> list[tuple[str, ...]]:
    """Latency of each step, in multiples of the p50 of whole orders."""
    latencies = body["latencyMilliseconds"]
    base = latencies.get(ORDER, {}).get("p50")
    ordered = sorted(latencies.items(), key=lambda item: item[0] == ORDER)
    found = [(step, *(shown(ratio(each[name], base)) for name in PERCENTILES)) for step, each in ordered]
    return [("step", *PERCENTILES), *found]


def processes(body: Body) -> list[tuple[str, ...]]:
    """CPU of each process, in multiples of the server's."""
    used = body["cpuMillisecondsPerOrder"]
    found = ((name, shown(ratio(value, used.get(SERVER)))) for name, value in used.items())
    return [("process", "CPU per order"), *found]


def floors(body: Body) -> list[tuple[str, ...]]:
    """CPU of the server in multiples of both lower bounds."""
    if not body["plan"]["floor"]:
        return []
    used, floor = body["cpuMillisecondsPerOrder"].get(SERVER), body["floorMilliseconds"]
    return [
        ("lower bound", "CPU of the server"),
        ("sum of the parts, each in a loop of its own", shown(ratio(used, floor["sumOfParts"]))),
        ("all parts in a minimal server, under the same load", shown(ratio(used, floor["bareOrder"]))),
    ]


def challenges(bodies: Sequence[Body]) -> list[tuple[str, ...]]:
    """Each short measurement in multiples of the first one; API requests are per order."""

    def figures(body: Body) -> Iterator[float | None]:
        latencies = body["latencyMilliseconds"].get(ORDER, {})
        yield body["cpuMillisecondsPerOrder"].get(SERVER)
        yield body["ordersPerSecond"]
        yield from (latencies.get(name) for name in ("p50", "p99"))

    head = ("order by", "API writes, reads", "server CPU", "orders/s", "p50", "p99")
    return [head, *((rows.title(each), requests(each), *_cells(figures, each, bodies[0])) for each in bodies)]


def servers(bodies: Sequence[Body]) -> list[tuple[str, ...]]:
    """CPU with each number of servers, relative to the client's, in multiples of the first row."""

    def figures(body: Body) -> Iterator[float | None]:
        used = body["cpuMillisecondsPerOrder"]
        together = sum(value for name, value in used.items() if name.startswith(SERVER))
        for value in (together, used.get(API_SERVER), used.get(ETCD)):
            yield ratio(value, used.get(CLIENT))

    head = ("behind a balancer", "CPU of all servers", "CPU of the API server", "CPU of etcd", "API writes, reads")
    return [head, *((replicas.title(each), *_cells(figures, each, bodies[0]), requests(each)) for each in bodies)]


def requests(body: Body) -> str:
    """API writes and reads per order."""
    api = body["apiRequestsPerOrder"]
    return f"{api['writes']:.1f}, {api['reads']:.1f}".replace(".0", "") if api else ""


def _cells(figures: Callable[[Body], Iterable[float | None]], body: Body, first: Body) -> Iterator[str]:
    for value, base in zip(figures(body), figures(first), strict=True):
        yield "1" if body is first and value else shown(ratio(value, base))
