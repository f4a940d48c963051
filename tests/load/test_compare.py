"""The rounds and ratios of `--compare`, with measurements that are given."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from e2e.load import compare
from e2e.load.drive import ORDER, Tally
from e2e.load.measure import Measurement, Plan, Target
from e2e.load.report import Machine, document

MACHINE = Machine(cores=2, processor="Test CPU", python="3.11.2 of /usr/bin/python3.11")


def target(name: str) -> Target:
    return Target(
        name=name, directory_url="", tls=None, external_account=None, http_port=1, dns_port=1, pids={"server": 1}
    )


def body(name: str, *, cpu: float, seconds: float = 10.0, latency: float = 0.1, **others: float) -> dict[str, Any]:
    """100 orders; the CPU of the server and of others is in seconds altogether."""
    tally = Tally(seconds=seconds, orders=100, latencies={ORDER: [latency] * 100})
    used = Counter({"server": cpu, "client": 1.0} | {each.replace("_", "-"): value for each, value in others.items()})
    return document(Measurement(target=name, plan=Plan(), tally=tally, cpu=used), MACHINE)


ROUNDS = [
    [body("step-ca", cpu=1.0), body("kms-acme", cpu=2.0, seconds=20.0, latency=0.3, kube_apiserver=3.0, etcd=0.5)],
    # Everything takes twice as long: another program runs.
    [
        body("step-ca", cpu=2.0, seconds=20.0, latency=0.2),
        body("kms-acme", cpu=3.0, seconds=30.0, latency=0.5, kube_apiserver=5.0, etcd=0.6),
    ],
]


def test_each_round_begins_with_another_server_and_they_share_orders_and_warm_up() -> None:
    seen: list[tuple[str, Plan]] = []

    def measure(target: Target, plan: Plan) -> Measurement:
        seen.append((target.name, plan))
        return Measurement(target=target.name, plan=plan)

    targets = [target(name) for name in ("a", "b", "c")]
    rounds = list(compare.in_turn(targets, Plan(orders=40, warm_up=10), measure, rounds=4))
    assert [name for name, _ in seen] == ["a", "b", "c", "b", "c", "a", "c", "a", "b", "a", "b", "c"]
    assert [[each.target for each in measured] for measured in rounds] == [["a", "b", "c"]] * 4
    assert {(plan.orders, plan.warm_up, plan.floor) for _, plan in seen} == {(10, 3, False)}


def test_ratios_are_those_of_a_round_so_that_a_busy_machine_does_not_change_them() -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in compare.table(ROUNDS).splitlines()]
    assert lines[0] == [
        *("in multiples of step-ca", "orders/s", "p50", "server CPU per order", "kube-apiserver CPU", "etcd CPU"),
        "client CPU",
    ]
    assert lines[2] == ["step-ca", "1", "1", "1", "", "", "1"]
    assert lines[3] == [
        *("kms-acme", "0.58 (0.50 to 0.67)", "2.75 (2.50 to 3.00)", "1.75 (1.50 to 2.00)"),
        *("2.75 (2.50 to 3.00)", "0.40 (0.30 to 0.50)", "1.00 (1.00 to 1.00)"),
    ]


def test_the_head_names_the_interpreter_and_what_1_stands_for() -> None:
    head = compare.head(ROUNDS)
    assert "Python 3.11.2 of /usr/bin/python3.11" in head
    assert "1 stands for step-ca: 7.5 orders/s, p50 150.0 ms, 15.00 ms of CPU per order" in head


def test_a_server_whose_orders_all_fail_has_no_ratios_but_its_errors_are_told() -> None:
    tally = Tally(seconds=1.0)
    tally.add_error(TimeoutError("never"))
    failed = document(Measurement(target="kms-acme", plan=Plan(), tally=tally), MACHINE)
    rounds = [[ROUNDS[0][0], failed]]
    assert compare.table(rounds).splitlines()[-1] == "| kms-acme |  |  |  |  |  |  |"
    assert compare.failures(rounds) == ["kms-acme: 1 x timeout, such as: never"]
    assert compare.promises(rounds, "kms-acme") == []
    assert "unknown" in compare.head([[failed]])


@pytest.mark.parametrize(("cpu", "kept"), [(1.2, True), (1.4, False)])
def test_the_cpu_beside_step_ca_is_a_promise(cpu: float, kept: bool) -> None:
    rounds = [[body("step-ca", cpu=1.0), body("kms-acme", cpu=cpu)]]
    assert [each for _, each in compare.promises(rounds, "kms-acme")] == [kept]
    others = [[body("pebble", cpu=1.0), body("kms-acme", cpu=cpu)]]
    assert compare.promises(others, "kms-acme") == []
