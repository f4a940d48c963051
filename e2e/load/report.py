"""The results of a measurement as a JSON document and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from e2e.load.drive import ORDER
from e2e.load.figures import floor_of, growth_per_10000, latency, per_order
from e2e.load.floor import shares
from e2e.load.measure import OTHERS, SERVER, Measurement

MEGABYTE = 1_000_000
MILLI = 1000

FLOOR_LIMIT = 2.0
FINALIZE_LIMIT = 500.0
GROWTH_LIMIT = 40.0
"""Performance targets: CPU in multiples of the floor, p99 in milliseconds, megabytes per 10,000 orders."""

GROWTH_FROM = 1_000
"""Orders below which memory says nothing of its growth: caches are still filling."""

READS = frozenset({"get", "list"})
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a measurement."""

    cores: int
    processor: str
    python: str


def document(measured: Measurement, machine: Machine) -> dict[str, Any]:
    """All results; each member has its unit in its name."""
    tally, orders = measured.tally, measured.tally.orders
    cpu = per_order(measured.cpu, orders) if orders else {}
    api = None if measured.api is None or not orders else requests_per_order(measured.api, orders)
    body: dict[str, Any] = {
        "target": measured.target,
        "machine": asdict(machine),
        "plan": asdict(measured.plan),
        "orders": orders,
        "seconds": round(tally.seconds, 3),
        "ordersPerSecond": round(orders / tally.seconds, 2) if tally.seconds else 0.0,
        "errors": dict(tally.errors),
        "errorTexts": tally.texts,
        "retries": {kind: measured.retries.get(kind, 0) for kind in ("badNonce", "503")},
        "breaches": dict(measured.breaches),
        "latencyMilliseconds": {step: _milliseconds(each) for step, each in sorted(tally.latencies.items())},
        "cpuMillisecondsPerOrder": {name: round(seconds * MILLI, 3) for name, seconds in cpu.items()},
        "busyCores": {name: round(value, 3) for name, value in busy_cores(measured).items()},
        "floorMilliseconds": {
            "rounds": measured.floor_rounds,
            "bareOrder": round(measured.floor * MILLI, 3),
            "parts": {name: round(seconds * MILLI, 4) for name, seconds in measured.parts.items()},
            "sumOfParts": round(floor_of(measured.parts, shares(measured.plan.names)) * MILLI, 3),
        },
        "apiRequestsPerOrder": api,
        "residentMegabytes": {
            name: {"before": round(octets / MEGABYTE, 1), "after": round(measured.after[name] / MEGABYTE, 1)}
            for name, octets in measured.before.items()
        },
        "growthMegabytesPer10000Orders": {
            name: round(growth_per_10000(samples) / MEGABYTE, 1) for name, samples in measured.samples.items()
        },
    }
    if SERVER in cpu and measured.floor:
        body["serverCpuInFloors"] = round(cpu[SERVER] / measured.floor, 2)
    return body


def busy_cores(measured: Measurement) -> dict[str, float]:
    """The number of cores that each measured process used, and that all other processes used."""
    if not measured.tally.seconds:
        return {}
    others = max(measured.machine - measured.cpu.total(), 0.0)
    return {name: seconds / measured.tally.seconds for name, seconds in {**measured.cpu, OTHERS: others}.items()}


def requests_per_order(counts: Mapping[str, int], orders: int) -> dict[str, Any]:
    """API requests per order: writes, reads, and each kind of request."""
    by_kind = per_order(dict(counts), orders)
    verbs = [(kind.partition(" ")[0], value) for kind, value in by_kind.items()]
    return {
        "writes": round(sum(value for verb, value in verbs if verb in WRITES), 3),
        "reads": round(sum(value for verb, value in verbs if verb in READS), 3),
        "byKind": {kind: round(value, 4) for kind, value in sorted(by_kind.items())},
    }


def promises(body: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """The performance targets of our server that were measured, and whether each was met."""
    failed = sum(body["errors"].values())
    kept = [(f"no errors: {failed}", failed == 0)]
    if "serverCpuInFloors" in body:
        times = body["serverCpuInFloors"]
        kept.append((f"CPU of the server at most {FLOOR_LIMIT:g} floors: {times:.2f}", times <= FLOOR_LIMIT))
    if finalize := body["latencyMilliseconds"].get("finalize"):
        p99 = finalize["p99"]
        kept.append((f"finalize p99 below {FINALIZE_LIMIT:g} ms: {p99:.1f}", p99 < FINALIZE_LIMIT))
    growth = body["growthMegabytesPer10000Orders"].get(SERVER)
    if growth is not None and body["orders"] >= GROWTH_FROM:
        text = f"memory growth at most {GROWTH_LIMIT:g} MB for 10,000 retained orders: {growth:.1f}"
        kept.append((text, growth <= GROWTH_LIMIT))
    return kept


def table(body: Mapping[str, Any]) -> str:
    """The document as a table."""
    plan, machine = body["plan"], body["machine"]
    what = "renewals" if plan["renewal"] else f"orders by {plan['challenge']}"
    head = (
        f"{body['target']}: {body['orders']:,} {what}, {plan['names']} name{'s'[: plan['names'] > 1]} each,"
        f" {plan['clients']} clients, {plan['accounts']} accounts\n"
        f"{machine['cores']} cores of {machine['processor']}, Python {machine['python']}\n\n"
        f"{body['ordersPerSecond']:.1f} orders/s over {body['seconds']:.1f} s;"
        f" retried: {body['retries']['badNonce']} x badNonce, {body['retries']['503']} x 503"
    )
    parts = [head, _latencies(body), _cpu(body), _floor(body), _api(body), _memory(body), _errors(body)]
    return "\n\n".join(part for part in parts if part)


def verdicts(told: Iterable[tuple[str, bool]]) -> str:
    """One line for each performance target."""
    return "\n".join(f"{'kept  ' if kept else 'MISSED'}  {text}" for text, kept in told)


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Align rows as text: the first column to the left, the others to the right."""
    lines = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _milliseconds(seconds: Iterable[float]) -> dict[str, float]:
    return {
        name: value if name == "count" else round(value * MILLI, 2) for name, value in asdict(latency(seconds)).items()
    }


def _latencies(body: Mapping[str, Any]) -> str:
    steps = sorted(body["latencyMilliseconds"].items(), key=lambda item: item[0] == ORDER)
    if not steps:
        return ""
    rows = [("latency, ms", "count", "p50", "p95", "p99", "maximum")]
    rows += [
        (step, f"{each['count']:,}", *(f"{each[name]:.1f}" for name in ("p50", "p95", "p99", "maximum")))
        for step, each in steps
    ]
    return columns(rows)


def _cpu(body: Mapping[str, Any]) -> str:
    used = body["cpuMillisecondsPerOrder"]
    if not used:
        return ""
    rows = [("CPU", "ms per order", "cores")]
    for name, cores in body["busyCores"].items():
        rows.append((name, f"{used[name]:.2f}" if name in used else "", f"{cores:.2f}"))
    return columns(rows)


def _floor(body: Mapping[str, Any]) -> str:
    if not body["plan"]["floor"]:
        return ""
    floor, count = body["floorMilliseconds"], shares(body["plan"]["names"])
    rows = [(f"floor, ms (median of {floor['rounds']} rounds)", "each", "per order")]
    rows.append(("bare order", "", f"{floor['bareOrder']:.2f}"))
    rows.append(("sum of its parts in a tight loop", "", f"{floor['sumOfParts']:.2f}"))
    rows += [
        (f"  {count[name]} x {name}", f"{value:.3f}", f"{count[name] * value:.2f}")
        for name, value in floor["parts"].items()
    ]
    text = columns(rows)
    if "serverCpuInFloors" in body:
        text += f"\nthe server uses {body['serverCpuInFloors']:.2f} times the CPU time of a bare order"
    return text


def _api(body: Mapping[str, Any]) -> str:
    api = body["apiRequestsPerOrder"]
    if api is None:
        return ""
    rows = [("API requests of the server per order", ""), ("writes", f"{api['writes']:.3f}")]
    rows += [
        ("reads", f"{api['reads']:.3f}"),
        *((f"  {kind}", f"{value:.3f}") for kind, value in api["byKind"].items()),
    ]
    return columns(rows)


def _memory(body: Mapping[str, Any]) -> str:
    if not body["residentMegabytes"]:
        return ""
    growth = body["growthMegabytesPer10000Orders"]
    rows = [("resident memory", "before, MB", "after, MB", "MB per 10,000 orders")]
    rows += [
        (name, f"{each['before']:.1f}", f"{each['after']:.1f}", f"{growth[name]:.1f}" if name in growth else "")
        for name, each in body["residentMegabytes"].items()
    ]
    return columns(rows)


def _errors(body: Mapping[str, Any]) -> str:
    breaches = [f"violated: {rule} ({count} times)" for rule, count in body["breaches"].items()]
    if not body["errors"]:
        return "\n".join(["no errors", *breaches])
    lines = [*breaches, "errors"]
    for kind, count in body["errors"].items():
        lines += [f"  {count} x {kind}", *(f"      {text}" for text in body["errorTexts"][kind])]
    return "\n".join(lines)
