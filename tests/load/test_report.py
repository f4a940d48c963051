from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from e2e.load.drive import ORDER, Tally
from e2e.load.measure import Measurement, Plan
from e2e.load.report import Machine, columns, document, promises, requests_per_order, table, verdicts

MACHINE = Machine(cores=2, processor="Test CPU", python="3.11.7")


@pytest.fixture
def measured() -> Measurement:
    tally = Tally(seconds=20.0, orders=1000)
    for step, seconds in (("finalize", 0.02), (ORDER, 0.1)):
        for _ in range(1000):
            tally.add_duration(step, seconds)
    return Measurement(
        target="kms-acme",
        plan=Plan(orders=1000),
        tally=tally,
        cpu=Counter({"server": 3.0, "client": 5.0}),
        machine=10.0,
        before={"server": 100_000_000},
        after={"server": 103_000_000},
        samples={"server": [(orders, 100_000_000 + 3000 * orders) for orders in range(0, 1000, 10)]},
        api=Counter(
            {"create acmeorders": 1000, "update acmeorders/status": 2000, "get acmeaccounts": 10, "watch x": 1}
        ),
        floor=0.0025,
        parts={"request": 0.0001, "write": 0.0002, "fetch": 0.0003, "csr": 0.0001, "signature": 0.0002},
        floor_rounds=6,
        retries=Counter({"badNonce": 1}),
    )


@pytest.fixture
def body(measured: Measurement) -> dict[str, Any]:
    return document(measured, MACHINE)


def test_the_document_tells_every_figure_in_its_unit(body: dict[str, Any]) -> None:
    assert body["ordersPerSecond"] == 50
    assert body["latencyMilliseconds"]["finalize"] == {
        "count": 1000, "mean": 20, "p50": 20, "p95": 20, "p99": 20, "maximum": 20,
    }  # fmt: skip
    assert body["cpuMillisecondsPerOrder"] == {"server": 3, "client": 5}
    assert body["busyCores"] == {"server": 0.15, "client": 0.25, "others": 0.1}
    assert body["floorMilliseconds"]["bareOrder"] == 2.5
    assert body["floorMilliseconds"]["sumOfParts"] == pytest.approx(9 * 0.1 + 3 * 0.2 + 0.3 + 0.1 + 0.2)
    assert body["serverCpuInFloors"] == 3 / 2.5
    assert body["residentMegabytes"] == {"server": {"before": 100, "after": 103}}
    assert body["growthMegabytesPer10000Orders"] == {"server": 30}
    assert body["retries"] == {"badNonce": 1, "503": 0}


def test_api_requests_are_split_into_writes_reads_and_kinds(body: dict[str, Any]) -> None:
    api = body["apiRequestsPerOrder"]
    assert (api["writes"], api["reads"]) == (3, 0.01)
    assert api["byKind"]["update acmeorders/status"] == 2


def test_a_watch_is_neither_a_read_nor_a_write() -> None:
    counted = requests_per_order({"watch acmeorders": 5, "delete acmeaccounts": 2}, 1)
    assert (counted["writes"], counted["reads"]) == (2, 0)


def test_all_promises_can_be_kept(body: dict[str, Any]) -> None:
    assert [kept for _, kept in promises(body)] == [True] * 4
    assert "MISSED" not in verdicts(promises(body))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"errors": {"timeout": 1}}, "no errors: 1"),
        ({"serverCpuInFloors": 2.01}, "at most 2 floors: 2.01"),
        ({"latencyMilliseconds": {"finalize": {"p99": 500.0}}}, "below 500 ms: 500.0"),
        ({"growthMegabytesPer10000Orders": {"server": 40.1}}, "at most 40 MB for 10,000 retained orders: 40.1"),
    ],
)
def test_a_promise_that_was_missed_is_said_so(body: dict[str, Any], change: dict[str, Any], text: str) -> None:
    missed = [told for told, kept in promises(body | change) if not kept]
    assert len(missed) == 1
    assert text in missed[0]
    assert "MISSED" in verdicts(promises(body | change))


def test_memory_is_not_judged_after_few_orders(body: dict[str, Any]) -> None:
    grown = body | {"growthMegabytesPer10000Orders": {"server": 67.3}}
    assert not all(kept for _, kept in promises(grown))
    assert all(kept for _, kept in promises(grown | {"orders": 400}))


def test_the_table_has_every_part(body: dict[str, Any]) -> None:
    text = table(body)
    for part in (
        "kms-acme: 1,000 orders by http-01, 1 name each, 8 clients, 8 accounts",
        "2 cores of Test CPU",
        "50.0 orders/s",
        "finalize     1,000   20.0",
        "9 x request",
        "1.20 times the CPU time of a bare order",
        "103.0",
        "no errors",
    ):
        assert part in text
    assert re.search(r"update acmeorders/status +2\.000\n", text)
    assert text.index("finalize") < text.index(ORDER)
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_errors_are_shown_with_their_texts(measured: Measurement) -> None:
    measured.tally.add_error(TimeoutError("order 7 never ended"))
    measured.breaches["a rule"] = 3
    text = table(document(measured, MACHINE))
    assert "1 x timeout" in text
    assert "order 7 never ended" in text
    assert "violated: a rule (3 times)" in text


def test_names_are_counted_in_words(measured: Measurement) -> None:
    measured.plan = Plan(names=10)
    assert "orders by http-01, 10 names each," in table(document(measured, MACHINE))


def test_renewals_are_called_so_and_a_floor_that_was_not_measured_is_not_told(measured: Measurement) -> None:
    measured.plan = Plan(orders=1000, renewal=True, floor=False)
    text = table(document(measured, MACHINE))
    assert "1,000 renewals, 1 name each," in text
    assert "floor" not in text


def test_a_run_in_which_nothing_succeeded_and_nothing_could_be_watched_is_told_all_the_same() -> None:
    measured = Measurement(target="x", plan=Plan())
    measured.tally.add_error(TimeoutError("never"))
    body = document(measured, MACHINE)
    assert body["ordersPerSecond"] == 0
    assert body["apiRequestsPerOrder"] is None
    assert "1 x timeout" in table(body)
    assert promises(body) == [("no errors: 1", False)]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns([("a", "1"), ("long", "10,000")]) == "a          1\nlong  10,000"
