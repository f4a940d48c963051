from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from e2e.cluster import Progress
from e2e.load import growth
from e2e.load.drive import Tally
from e2e.load.growth import Row, Sizes, main
from e2e.load.measure import Measurement, Plan
from e2e.load.processes import Usage
from e2e.load.report import Machine, document


def row(group: str, size: int, *, servers: int = 1, memory: int = 100, reads: int = 0, **cpu: float) -> Row:
    """100 orders; CPU is in seconds altogether, memory in MB."""
    names = ["server"] if servers == 1 else [f"server {number}" for number in range(1, servers + 1)]
    used = Counter(dict.fromkeys(names, cpu.pop("server", 1.0)) | {"client": 1.0} | cpu)
    resident = dict.fromkeys(names, memory * 1_000_000)
    api = Counter({"update acmeorders/status": 300, "get acmeorders": 100 * reads})
    measured = Measurement("x", Plan(), Tally(seconds=1.0, orders=100), used, before=resident, after=resident, api=api)
    return Row(group, size, document(measured, Machine(cores=2, processor="Test CPU", python="3.11.2")))


def cells(rows: list[Row]) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in growth.table(rows).splitlines()[2:]]


def test_each_group_has_its_own_unit_and_servers_add_up() -> None:
    found = cells(
        [
            row("names of an order", 1, etcd=1.0),
            row("names of an order", 10, server=3.0, etcd=1.0),
            row("replicas", 1, server=2.0, etcd=2.0),
            row("replicas", 2, servers=2, server=2.0, memory=110, reads=6, etcd=3.0),
        ]
    )
    assert found == [
        ["names of an order: 1", "1", "", "1", "1", "1", "3", "0"],
        ["names of an order: 10", "3.00", "", "1.00", "1.00", "1.00", "3", "0"],
        ["replicas: 1", "1", "", "1", "1", "1", "3", "0"],
        ["replicas: 2", "2.00", "", "1.50", "1.00", "1.10", "3", "6"],
    ]


def test_what_1_stands_for_is_told_for_each_group() -> None:
    found = growth.units([row("a", 1, etcd=1.0), row("a", 10), row("b", 1, server=2.0, memory=90)])
    assert found == [
        "1 stands for, a: servers 10.0 ms, etcd 10.0 ms, client 10.0 ms, memory 100 MB",
        "1 stands for, b: servers 20.0 ms, client 10.0 ms, memory 90 MB",
    ]


def test_a_profile_comes_with_a_namespace_a_ca_and_a_policy_of_its_own() -> None:
    objects = growth.profile(7)
    assert [each["kind"] for each in objects] == [
        *("Namespace", "CertificateAuthority", "CertificatePolicy", "CertificateProfile"),
    ]
    assert [each["metadata"].get("namespace", each["metadata"]["name"]) for each in objects] == ["load-7"] * 4


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, arguments)


def test_help_teaches() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for word in ("Examples:", "Exit codes:", "--stored", "namespace"):
        assert word in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--names", "1,many"], "N,N"),
        (["--names", "1,101"], "from 1 to 100"),
        (["--stored", "1,300000"], "from 1 to 200,000"),
        (["--servers", "3,1"], "ascending"),
        (["--profiles", "0,1"], "from 1 to 1,000"),
        (["--orders", "0"], "not in the range"),
    ],
)
def test_wrong_usage_ends_with_exit_code_2(arguments: list[str], text: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert text in result.output


def test_rows_that_were_measured_before_a_failure_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_given: object, **_named: object) -> Iterator[Row]:
        yield row("replicas", 1)
        raise TimeoutError("the machine is busy")

    monkeypatch.setattr(growth, "measured", failing)
    result = run("--orders", "10")
    assert result.exit_code == 1
    assert "| replicas: 1 | 1 |" in result.output
    assert "the machine is busy" in result.output


def test_a_row_begins_when_the_processes_are_quiet() -> None:
    seconds, slept = iter([1.0, 5.0, 8.0, 8.1, 8.2]), list[float]()
    growth.wait_until_quiet({}, usages=lambda _pids: {"server": Usage(cpu=next(seconds))}, sleep=slept.append)
    assert len(slept) == 3
    assert next(seconds) == 8.2


def test_a_row_begins_although_something_is_never_quiet() -> None:
    busy, slept = count(step=10), list[float]()
    growth.wait_until_quiet({}, usages=lambda _pids: {"server": Usage(cpu=next(busy))}, sleep=slept.append)
    assert sum(slept) == growth.QUIET_TRIES * growth.QUIET_SECONDS


@pytest.mark.cluster
def test_every_group_is_measured_with_three_writes_in_each_row(tmp_path: Path) -> None:
    """The same as at full size, which is `python -m e2e.load.growth`."""
    sizes = Sizes(names=(1, 2), profiles=(1, 2), servers=(1, 2), stored=(1, 150))
    rows = list(growth.measured(tmp_path, Progress(io.StringIO()), sizes, orders=10))
    assert [(each.group, each.size) for each in rows] == [
        *(("names of an order", 1), ("names of an order", 2)),
        *(("profiles and namespaces", 1), ("profiles and namespaces", 2)),
        *(("replicas", 1), ("replicas", 2)),
        *(("stored orders", 1), ("stored orders", 150)),
    ]
    for each in rows:
        assert not each.body["errors"], each
        assert each.body["apiRequestsPerOrder"]["writes"] == 3
        if each.group != "replicas":
            assert each.body["apiRequestsPerOrder"]["reads"] == 0
    assert growth.table(rows).count("\n") == len(rows) + 1
