from __future__ import annotations

import io
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from e2e.cluster import Progress
from e2e.load import workers
from e2e.load.cpulimit import CannotLimit, limited
from e2e.load.drive import Tally
from e2e.load.measure import CLIENT, Measurement, Plan
from e2e.load.scenario import SetUpFailed
from e2e.load.workers import Row, goals, main, row, table, why_no_goal, worker_pids


def measurement(*, seconds: float, errors: int = 0) -> Measurement:
    tally = Tally(seconds=seconds, orders=100, errors=Counter({"timeout": errors} if errors else {}))
    cpu = Counter({"worker 0": 0.6, "worker 1": 0.4, "etcd": 9.0, CLIENT: 0.5})
    return Measurement("x", Plan(), tally, cpu, api=Counter({"get acmeaccounts": 100, "create acmeorders": 100}))


def test_a_row_has_the_cpu_of_all_workers_and_the_share_of_the_busiest() -> None:
    found = row(measurement(seconds=4.0), ["worker 0", "worker 1"])
    assert found == Row(rate=25.0, cpu=0.01, client=0.005, busiest=0.6, reads=1.0)


def test_a_measurement_with_failed_orders_is_none() -> None:
    with pytest.raises(SetUpFailed, match="timeout"):
        row(measurement(seconds=4.0, errors=1), ["worker 0"])


def rows(*rates: float) -> dict[int, list[Row]]:
    """Two rounds with one worker at 20 orders per second, and with two workers at these rates."""
    return {
        1: [Row(20.0, 0.01, 0.005, 1.0, 0.0)] * len(rates),
        2: [Row(each, 0.012, 0.005, 0.52, 1.0) for each in rates],
    }


def test_the_table_has_ratios_of_the_rounds() -> None:
    _, _, one, two = table(rows(30.0, 34.0)).splitlines()
    assert one.startswith("| 1 | 1.00 (1.00 to 1.00) |")
    assert two == (
        "| 2 | 1.60 (1.50 to 1.70) | 1.20 (1.20 to 1.20) | 1.00 (1.00 to 1.00) | 0.52 (0.52 to 0.52)"
        " | 1.00 (1.00 to 1.00) |"
    )


@pytest.mark.parametrize(("rate", "kept"), [(32.0, True), (31.9, False)])
def test_the_target_can_be_missed(rate: float, *, kept: bool) -> None:
    assert [each for _, each in goals(rows(rate))] == [kept]


@pytest.mark.parametrize(
    ("numbers", "share", "available", "text"),
    [
        ([1, 2], 0.25, 2, None),
        ([1, 2], 1, 8, None),
        ([1, 2], 1, 2, "--share 0.25 or less"),
        ([1, 2], 0.5, 1, "--share 0.125 or less"),
        ([2], 0.25, 2, "--workers 1,2"),
        ([1, 4], 0.1, 2, "--workers 1,2"),
    ],
)
def test_the_target_is_for_workers_that_are_the_bottleneck(
    numbers: list[int], share: float, available: int, text: str | None
) -> None:
    found = why_no_goal(numbers, share=share, available=available)
    assert found is None if text is None else text in (found or "")


def test_a_single_worker_is_the_server_and_others_are_its_children() -> None:
    assert worker_pids(os.getpid(), 1) == [os.getpid()]
    with pytest.raises(SetUpFailed, match="instead of 7 workers"):
        worker_pids(os.getpid(), 7)


@pytest.mark.parametrize("version", [1, 2])
def test_each_process_has_a_limit_of_its_own(tmp_path: Path, version: int) -> None:
    parent = tmp_path / "cpu" if version == 1 else tmp_path
    parent.mkdir(exist_ok=True)
    # Only a control group can be removed with its files.
    with suppress(OSError), limited([41, 42], 0.25, groups=tmp_path):
        found = {each.parent.name[-2:]: each.read_text() for each in parent.glob("*/cgroup.procs")}
        limits = {each.name: each.read_text() for each in parent.glob("*/cpu.*")}
    assert found == {"41": "41", "42": "42"}
    quota = {"cpu.cfs_quota_us": "2500", "cpu.cfs_period_us": "10000"}
    assert limits == (quota if version == 1 else {"cpu.max": "2500 10000"})
    assert (parent / "cgroup.procs").read_text() == "41", "all are moved back, the first one at last"


def test_who_may_not_limit_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(CannotLimit, match="needs root"), limited([1], 0.25, groups=tmp_path / "none"):
        pass


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--workers", "0"], "at least one number"),
        (["--workers", "2,1"], "ascending"),
        (["--share", "2"], "not in the range"),
        (["--rounds", "0"], "not in the range"),
        (["--check", "--workers", "2"], "the goal compares"),
    ],
)
def test_wrong_usage_ends_with_exit_code_2(arguments: list[str], text: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert text in result.output


@pytest.mark.soak
@pytest.mark.cluster
def test_two_workers_are_measured_beside_one(tmp_path: Path) -> None:
    """The same as at full size, which is `python -m e2e.load.workers`."""
    plan = Plan(orders=12, clients=4, accounts=4, warm_up=4, floor=False)
    found = workers.measured(tmp_path, Progress(io.StringIO()), numbers=(1, 2), share=1, rounds=1, plan=plan)
    assert found[1][0].reads == 0 < found[2][0].reads
    assert found[1][0].busiest == 1 > found[2][0].busiest
