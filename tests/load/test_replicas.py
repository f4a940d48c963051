from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from e2e.load import replicas
from e2e.load.drive import ORDER, Tally
from e2e.load.measure import Measurement, Plan
from e2e.load.report import Machine, document

SECONDS = 10.0


def body(
    *, writes: int = 3, reads: int = 1, errors: int = 0, servers: int = 2, machine: float = 20.0, **cpu: float
) -> dict[str, Any]:
    """100 orders in ten seconds; `cpu` is in seconds altogether, that of `server` for each of the servers."""
    tally = Tally(seconds=SECONDS, orders=100)
    for _ in range(100):
        tally.add_duration(ORDER, 0.05)
    for _ in range(errors):
        tally.add_error(TimeoutError("never"))
    each = cpu.pop("server", 2.0)
    used = {f"server {number}": each for number in range(1, servers + 1)} | cpu
    api = Counter({"update acmeorders/status": 100 * writes, "get acmeorders": 100 * reads})
    measured = Measurement(target="x", plan=Plan(), tally=tally, cpu=Counter(used), machine=machine, api=api)
    return document(measured, Machine(cores=2, processor="Test CPU", python="3.11.7"))


def test_a_row_sums_up_the_servers_and_tells_what_others_did() -> None:
    parts: dict[str, Any] = {"kube-apiserver": 8.0, "etcd": 1.0, "client": 4.0, "balancer": 0.5}
    lines = replicas.table([body(servers=3, machine=21.5, **parts)]).splitlines()
    assert lines[1].split() == (
        [
            "3",
            "servers",
            "10.0",
            "60.00",
            "80.00",
            "10.00",
            "40.00",
            "5.00",
            "3.00",
            "1.00",
            "50.0",
            "50.0",
            "0",
            "0.20",
        ]
    )
    assert replicas.title(body(servers=1)) == "1 server"


@pytest.mark.parametrize(
    ("cpu", "text"),
    [
        ({"server": 9.5, "machine": 12.0}, "server 1, server 2: one core is full"),
        ({"client": 9.1, "machine": 20.0}, "client: one core is full"),
        ({"kube-apiserver": 8.0, "client": 3.0}, "kube-apiserver uses most (kube-apiserver 40%,"),
        ({"server": 6.0, "kube-apiserver": 7.0}, "servers uses most (servers 60%, kube-apiserver 35%,"),
        ({"kube-apiserver": 2.0, "server": 0.5}, "kube-apiserver uses most (others 85%,"),
        ({"machine": 10.0}, "none: CPU was left"),
    ],
)
def test_what_is_used_up_is_the_bottleneck(cpu: dict[str, Any], text: str) -> None:
    assert text in replicas.bottleneck(body(**cpu))


@pytest.mark.parametrize(
    ("figures", "kept"), [({}, [True, True]), ({"writes": 4}, [True, False]), ({"errors": 1}, [False, True])]
)
def test_three_writes_and_no_errors_are_promised_with_several_servers_too(
    figures: dict[str, Any], kept: list[bool]
) -> None:
    assert [each for _, each in replicas.promises([body(**figures)])] == kept


def test_reads_are_not_promised_where_others_may_have_written() -> None:
    assert all(kept for _, kept in replicas.promises([body(reads=9)]))
