"""The short measurements and their table: each challenge type with one name and with ten names, and renewals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from e2e.load.drive import ORDER
from e2e.load.measure import SERVER, Plan
from e2e.load.report import columns
from e2e.load.solvers import CHALLENGES

NAMES = (1, 10)
_WARM_UP = 20
_WRITES, _WRITES_OF_RENEWALS = 3, 2
"""Performance targets: API writes per order. A renewal with valid authorizations validates nothing."""


def plans(plan: Plan, *, orders: int) -> Iterator[Plan]:
    """A plan for each row, with the number of clients of the main plan."""
    small = replace(plan, orders=orders, warm_up=_WARM_UP, floor=False)
    for challenge in CHALLENGES:
        for names in NAMES:
            yield replace(small, challenge=challenge, names=names)
    for names in NAMES:
        yield replace(small, names=names, renewal=True)


def title(body: Mapping[str, Any]) -> str:
    """The title of a row."""
    plan = body["plan"]
    what = "renewal" if plan["renewal"] else plan["challenge"]
    return f"{what}, {plan['names']} name{'s'[: plan['names'] > 1]}"


def table(bodies: Sequence[Mapping[str, Any]]) -> str:
    """A row for each document."""
    head = ("order by", "orders/s", "server CPU, ms", "writes", "reads", "p50, ms", "p99, ms", "errors")
    return columns([head, *map(_row, bodies)])


def promises(bodies: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    """The performance targets for API requests and errors of each row, and whether each was met."""
    kept = []
    for body in bodies:
        failed = sum(body["errors"].values())
        kept.append((f"{title(body)}: no errors: {failed}", failed == 0))
        if api := body["apiRequestsPerOrder"]:
            limit = _WRITES_OF_RENEWALS if body["plan"]["renewal"] else _WRITES
            text = f"{title(body)}: {limit} writes and no read: {api['writes']:g} and {api['reads']:g}"
            kept.append((text, api["writes"] <= limit and api["reads"] == 0))
    return kept


def _row(body: Mapping[str, Any]) -> tuple[str, ...]:
    api = body["apiRequestsPerOrder"] or {}
    cpu, whole = body["cpuMillisecondsPerOrder"], body["latencyMilliseconds"].get(ORDER, {})
    figures = (
        body["ordersPerSecond"],
        cpu.get(SERVER),
        api.get("writes"),
        api.get("reads"),
        whole.get("p50"),
        whole.get("p99"),
        sum(body["errors"].values()),
    )
    forms = (".1f", ".2f", ".2f", ".2f", ".1f", ".1f", "d")
    shown = ("" if each is None else f"{each:{form}}" for each, form in zip(figures, forms, strict=True))
    return (title(body), *shown)
