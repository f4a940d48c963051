from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.load.processes import PAGE, TICKS, Usage, family, machine, own, parse_stat, peak_memory, read_stats, usages

LINE = "{pid} ({name}) S {parent} 1 1 0 -1 4194560 100 0 0 0 {user} {system} 0 0 20 0 1 0 100 1000 {pages} 18446744073"


def line(pid: int, parent: int, *, name: str = "server", user: int = 0, system: int = 0, pages: int = 0) -> str:
    return LINE.format(pid=pid, parent=parent, name=name, user=user, system=system, pages=pages)


def write(proc: Path, *lines: str) -> None:
    for each in lines:
        folder = proc / each.partition(" ")[0]
        folder.mkdir()
        (folder / "stat").write_text(each)


def test_user_and_system_time_and_resident_memory_are_read() -> None:
    assert parse_stat(line(1, 0, user=150, system=50, pages=3)) == Usage(200 / TICKS, 3 * PAGE)


def test_a_command_name_may_hold_spaces_and_parentheses() -> None:
    assert parse_stat(line(1, 0, name="a) S (b c", user=TICKS)) == Usage(1.0, 0)


def test_a_family_is_a_process_and_its_descendants() -> None:
    lines = {1: line(1, 0), 2: line(2, 1), 3: line(3, 2), 4: line(4, 0), 5: line(5, 4)}
    assert family(1, lines) == {1, 2, 3}
    assert family(4, lines) == {4, 5}
    assert family(9, lines) == set()


def test_a_program_and_its_guard_are_told_as_one(tmp_path: Path) -> None:
    write(
        tmp_path, line(10, 1, user=TICKS, pages=1), line(11, 10, user=2 * TICKS, pages=2), line(12, 1, user=9 * TICKS)
    )
    assert usages({"server": 10}, proc=tmp_path) == {"server": Usage(3.0, 3 * PAGE)}


def test_a_process_that_has_ended_is_an_error_that_names_it(tmp_path: Path) -> None:
    write(tmp_path, line(10, 1))
    with pytest.raises(ProcessLookupError, match="operator"):
        usages({"server": 10, "operator": 77}, proc=tmp_path)


def test_what_is_no_process_and_what_ends_meanwhile_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, line(10, 1))
    (tmp_path / "self").mkdir()
    (tmp_path / "99").mkdir()
    assert read_stats(tmp_path).keys() == {10}


def test_a_child_is_not_counted_as_our_own() -> None:
    before = own()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        deadline = time.monotonic() + 30
        while (used := usages({"child": child.pid})["child"]).cpu < 0.5 and time.monotonic() < deadline:
            time.sleep(0.2)
        child.kill()
    assert used.cpu >= 0.1
    assert used.resident > 1_000_000
    assert own().cpu - before.cpu < used.cpu


def test_the_busy_time_of_the_machine_is_that_of_all_but_idle_and_stolen_time(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(f"cpu  {TICKS} {TICKS} {TICKS} 900 900 {TICKS} {TICKS} 900 900 0\ncpu0 1 1 1 1\n")
    assert machine(proc=tmp_path) == 5.0
    assert machine() > 0


def test_the_peak_of_memory_is_in_octets(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\tserver\nVmPeak:\t 9 kB\nVmHWM:\t   120 kB\nVmRSS:\t 80 kB\n")
    assert peak_memory(7, proc=tmp_path) == 120 * 1024
    (tmp_path / "7" / "status").write_text("Name:\tserver\nState:\tZ (zombie)\n")
    with pytest.raises(ProcessLookupError, match="7"):
        peak_memory(7, proc=tmp_path)
