from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from e2e.load import rows
from e2e.load.drive import ORDER, Tally
from e2e.load.measure import Measurement, Plan
from e2e.load.report import Machine, document


def body(plan: Plan, *, writes: int = 3, reads: int = 0, errors: int = 0, requests: bool = True) -> dict[str, Any]:
    tally = Tally(seconds=2.0, orders=10)
    for _ in range(10):
        tally.add_duration(ORDER, 0.05)
    for _ in range(errors):
        tally.add_error(TimeoutError("never"))
    api = Counter({"update acmeorders/status": 10 * writes, "get acmeorders": 10 * reads}) if requests else None
    measured = Measurement(target="x", plan=plan, tally=tally, cpu=Counter({"server": 0.06}), api=api)
    return document(measured, Machine(cores=2, processor="Test CPU", python="3.11.7"))


def test_every_type_of_challenge_and_renewals_have_a_row_for_one_name_and_for_ten() -> None:
    plans = list(rows.plans(Plan(orders=2000, clients=5, accounts=3), orders=50))
    assert [rows.title(body(plan)) for plan in plans] == [
        "http-01, 1 name",
        "http-01, 10 names",
        "dns-01, 1 name",
        "dns-01, 10 names",
        "tls-alpn-01, 1 name",
        "tls-alpn-01, 10 names",
        "renewal, 1 name",
        "renewal, 10 names",
    ]
    assert {(plan.orders, plan.clients, plan.accounts, plan.floor) for plan in plans} == {(50, 5, 3, False)}


def test_a_row_tells_what_an_order_costs() -> None:
    head, row = rows.table([body(Plan(challenge="dns-01", names=10))]).splitlines()
    assert head.split() == (
        [
            "order",
            "by",
            "orders/s",
            "server",
            "CPU,",
            "ms",
            "writes",
            "reads",
            "p50,",
            "ms",
            "p99,",
            "ms",
            "errors",
        ]
    )
    assert row.split() == ["dns-01,", "10", "names", "5.0", "6.00", "3.00", "0.00", "50.0", "50.0", "0"]


def test_what_could_not_be_measured_is_left_empty() -> None:
    assert rows.table([body(Plan(), requests=False)]).splitlines()[1].split() == (
        ["http-01,", "1", "name", "5.0", "6.00", "50.0", "50.0", "0"]
    )


@pytest.mark.parametrize(
    ("plan", "figures", "kept"),
    [
        (Plan(), {}, True),
        (Plan(), {"writes": 4}, False),
        (Plan(), {"reads": 1}, False),
        (Plan(renewal=True), {"writes": 2}, True),
        (Plan(renewal=True), {"writes": 3}, False),
    ],
)
def test_an_order_is_promised_three_writes_and_a_renewal_two(plan: Plan, figures: dict[str, Any], kept: bool) -> None:
    (errors, requests) = rows.promises([body(plan, **figures)])
    assert errors == (f"{rows.title(body(plan))}: no errors: 0", True)
    assert requests[1] == kept


def test_errors_break_a_promise() -> None:
    assert rows.promises([body(Plan(), errors=2, requests=False)]) == [("http-01, 1 name: no errors: 2", False)]
