from __future__ import annotations

from collections import Counter
from typing import Any

from e2e.load import ratios
from e2e.load.drive import ORDER, Tally
from e2e.load.measure import Measurement, Plan
from e2e.load.report import Machine, document


def body(*, plan: Plan | None = None, seconds: float = 10.0, reads: int = 0, **cpu: float) -> dict[str, Any]:
    """100 orders; CPU is in seconds altogether, a whole order takes 100 ms, finalize 20 ms."""
    tally = Tally(seconds=seconds, orders=100, latencies={ORDER: [0.1] * 100, "finalize": [0.02] * 100})
    used = Counter({each.replace("_", "-").replace("server-", "server "): value for each, value in cpu.items()})
    api = Counter({"update acmeorders/status": 300, "get acmeorders": 100 * reads})
    measured = Measurement("x", plan or Plan(floor=False), tally, used, api=api, floor=0.01)
    return document(measured, Machine(cores=2, processor="Test CPU", python="3.11.2"))


def test_steps_are_in_multiples_of_the_whole_order_which_comes_last() -> None:
    assert ratios.steps(body())[1:] == [("finalize", "0.20", "0.20", "0.20"), (ORDER, "1.00", "1.00", "1.00")]


def test_processes_are_in_multiples_of_the_server() -> None:
    assert ratios.processes(body(server=2.0, etcd=1.0))[1:] == [("server", "1.00"), ("etcd", "0.50")]


def test_lower_bounds_are_told_where_they_were_measured() -> None:
    assert ratios.floors(body(server=2.0)) == []
    assert ratios.floors(body(plan=Plan(), server=2.0))[2][1] == "2.00"


def test_short_measurements_are_in_multiples_of_the_first() -> None:
    found = ratios.challenges([body(server=1.0), body(plan=Plan(names=10, floor=False), server=4.0, seconds=50.0)])
    assert found[1:] == [
        ("http-01, 1 name", "3, 0", "1", "1", "1", "1"),
        ("http-01, 10 names", "3, 0", "4.00", "0.20", "1.00", "1.00"),
    ]


def test_cpu_with_several_servers_is_related_to_the_clients_which_tells_how_slow_the_machine_was() -> None:
    one = body(server_1=1.0, kube_apiserver=1.0, etcd=1.0, client=1.0)
    two = body(server_1=2.0, server_2=2.0, kube_apiserver=2.0, etcd=3.0, client=2.0, reads=6)
    assert ratios.servers([one, two])[1:] == [
        ("1 server", "1", "1", "1", "3, 0"),
        ("2 servers", "2.00", "1.00", "1.50", "3, 6"),
    ]


def test_all_tables_are_markdown_and_empty_ones_are_left_out() -> None:
    text = ratios.tables(body(plan=Plan(), server=1.0), [body(server=1.0)], [])
    assert [each.splitlines()[0] for each in text.split("\n\n")] == [
        "| step | p50 | p95 | p99 |",
        "| process | CPU per order |",
        "| lower bound | CPU of the server |",
        "| order by | API writes, reads | server CPU | orders/s | p50 | p99 |",
    ]
