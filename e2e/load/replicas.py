"""What an order costs where several servers share the load, and what keeps them from doing more. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from e2e.load.drive import ORDER
from e2e.load.measure import CLIENT, OTHERS, SERVER
from e2e.load.report import columns

FULL = 0.9
"""Share of a core, or of all of them, from which on there is no more to be had: the rest goes to switching."""
API_SERVER, ETCD, BALANCER = "kube-apiserver", "etcd", "balancer"
_ONE_THREAD = (SERVER, CLIENT, BALANCER)
"""What cannot use more than one core, however many there are, by the beginning of its name."""
_WRITES = 3


def count(body: Mapping[str, Any]) -> int:
    """How many servers there were."""
    return sum(name.startswith(SERVER) for name in body["busyCores"])


def title(body: Mapping[str, Any]) -> str:
    """What a row is about."""
    return f"{count(body)} server{'s'[: count(body) > 1]}"


def table(bodies: Sequence[Mapping[str, Any]]) -> str:
    """A row for each document; CPU in milliseconds an order, that of the servers summed up."""
    head = (
        "behind a balancer", "orders/s", "servers", API_SERVER, ETCD, CLIENT, BALANCER, "writes", "reads", "p50, ms",
        "p99, ms", "errors", "cores of others",
    )  # fmt: skip
    limits = [f"{title(body)}: {bottleneck(body)}" for body in bodies]
    return "\n".join([columns([head, *map(_row, bodies)]), "", *limits])


def promises(bodies: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    """What was promised about API writes and errors, and whether it was kept with so many servers.

    Reads are not among it: where there are others, what may have changed there is read.
    """
    kept = []
    for body in bodies:
        failed = sum(body["errors"].values())
        kept.append((f"{title(body)}: no errors: {failed}", failed == 0))
        if api := body["apiRequestsPerOrder"]:
            kept.append((f"{title(body)}: {_WRITES} writes: {api['writes']:g}", api["writes"] <= _WRITES))
    return kept


def bottleneck(body: Mapping[str, Any]) -> str:
    """What there must be more of before there are more orders a second."""
    busy, cores = body["busyCores"], body["machine"]["cores"]
    alone = [name for name, used in busy.items() if name.startswith(_ONE_THREAD) and used >= FULL]
    if alone:
        return f"{', '.join(alone)} with all of one core"
    if sum(busy.values()) < FULL * cores:
        return "none: there was CPU left, more clients at once would get more"
    parts = sorted(_summed(busy).items(), key=lambda each: -each[1])
    most = next(name for name, _ in parts if name != OTHERS)
    shares = ", ".join(f"{name} {used / cores:.0%}" for name, used in parts)
    return f"the {cores} cores that all share, of which {most} needs most ({shares})"


def _summed(values: Mapping[str, float]) -> dict[str, float]:
    """The servers as one."""
    summed: dict[str, float] = {}
    for name, value in values.items():
        key = "servers" if name.startswith(SERVER) else name
        summed[key] = summed.get(key, 0.0) + value
    return summed


def _row(body: Mapping[str, Any]) -> tuple[str, ...]:
    api = body["apiRequestsPerOrder"] or {}
    cpu, whole = _summed(body["cpuMillisecondsPerOrder"]), body["latencyMilliseconds"].get(ORDER, {})
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
