"""What orders of each kind cost, side by side: every type of challenge, one name and ten, and renewals. Pure."""

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
"""What the project promises an order to cost; one whose authorizations are still valid has nothing to validate."""


def plans(plan: Plan, *, orders: int) -> Iterator[Plan]:
    """A plan for each row, with as many clients as in the main one."""
    small = replace(plan, orders=orders, warm_up=_WARM_UP, floor=False)
    for challenge in CHALLENGES:
        for names in NAMES:
            yield replace(small, challenge=challenge, names=names)
    for names in NAMES:
        yield replace(small, names=names, renewal=True)


def title(body: Mapping[str, Any]) -> str:
    """What a row is about."""
    plan = body["plan"]
    what = "renewal" if plan["renewal"] else plan["challenge"]
    return f"{what}, {plan['names']} name{'s'[: plan['names'] > 1]}"


def table(bodies: Sequence[Mapping[str, Any]]) -> str:
    """A row for each document."""
    head = ("an order by", "orders/s", "server CPU, ms", "writes", "reads", "p50, ms", "p99, ms", "errors")
    return columns([head, *map(_row, bodies)])


def promises(bodies: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    """What was promised about API requests and errors, and whether it was kept in each row."""
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
