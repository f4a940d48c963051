"""The table of measurements with several servers, and the bottleneck of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from e2e.load.drive import ORDER
from e2e.load.measure import CLIENT, OTHERS, SERVER
from e2e.load.report import columns

FULL = 0.9
"""The share of one core, or of all cores, that counts as full; the rest is lost to context switches."""
API_SERVER, ETCD, BALANCER = "kube-apiserver", "etcd", "balancer"
_ONE_THREAD = (SERVER, CLIENT, BALANCER)
"""Name prefixes of the processes that use at most one core."""
_WRITES = 3


def count(body: Mapping[str, Any]) -> int:
    """The number of servers."""
    return sum(name.startswith(SERVER) for name in body["busyCores"])


def title(body: Mapping[str, Any]) -> str:
    """The title of a row."""
    return f"{count(body)} server{'s'[: count(body) > 1]}"


def table(bodies: Sequence[Mapping[str, Any]]) -> str:
    """A row for each document; CPU in milliseconds per order, summed over the servers."""
    head = (
        "behind a balancer", "orders/s", "servers", API_SERVER, ETCD, CLIENT, BALANCER, "writes", "reads", "p50, ms",
        "p99, ms", "errors", "cores of others",
    )  # fmt: skip
    limits = [f"{title(body)}: {bottleneck(body)}" for body in bodies]
    return "\n".join([columns([head, *map(_row, bodies)]), "", *limits])


def promises(bodies: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    """The performance targets for API writes and errors with several servers, and whether each was met.

    There is no target for reads: one guards the signature, and the others depend on how late the watches are.
    """
    kept = []
    for body in bodies:
        failed = sum(body["errors"].values())
        kept.append((f"{title(body)}: no errors: {failed}", failed == 0))
        if api := body["apiRequestsPerOrder"]:
            kept.append((f"{title(body)}: {_WRITES} writes: {api['writes']:g}", api["writes"] <= _WRITES))
    return kept


def bottleneck(body: Mapping[str, Any]) -> str:
    """The resource that limits the rate of orders."""
    busy, cores = body["busyCores"], body["machine"]["cores"]
    alone = [name for name, used in busy.items() if name.startswith(_ONE_THREAD) and used >= FULL]
    if alone:
        return f"{', '.join(alone)}: one core is full"
    if sum(busy.values()) < FULL * cores:
        return "none: CPU was left, more clients would achieve more"
    parts = sorted(_add_servers(busy).items(), key=lambda each: -each[1])
    most = next(name for name, _ in parts if name != OTHERS)
    shares = ", ".join(f"{name} {used / cores:.0%}" for name, used in parts)
    return f"all {cores} cores are full, {most} uses most ({shares})"


def _add_servers(values: Mapping[str, float]) -> dict[str, float]:
    """The values with all servers added up."""
    summed: dict[str, float] = {}
    for name, value in values.items():
        key = "servers" if name.startswith(SERVER) else name
        summed[key] = summed.get(key, 0.0) + value
    return summed


def _row(body: Mapping[str, Any]) -> tuple[str, ...]:
    api = body["apiRequestsPerOrder"] or {}
    cpu, whole = _add_servers(body["cpuMillisecondsPerOrder"]), body["latencyMilliseconds"].get(ORDER, {})
    figures = (
        body["ordersPerSecond"],
        *(cpu.get(name) for name in ("servers", API_SERVER, ETCD, CLIENT, BALANCER)),
        api.get("writes"),
        api.get("reads"),
        whole.get("p50"),
        whole.get("p99"),
        sum(body["errors"].values()),
        body["busyCores"].get(OTHERS),
    )
    forms = (".1f", *(".2f",) * 7, ".1f", ".1f", "d", ".2f")
    shown = ("" if each is None else f"{each:{form}}" for each, form in zip(figures, forms, strict=True))
    return (title(body), *shown)
