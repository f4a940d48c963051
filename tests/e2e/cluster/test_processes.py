"""Processes must not outlive whoever started them, however that one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.cluster.processes import Deadline, Process, last_lines, started_at

# Starts `sleep` (whose process id it prints by way of a file) under a guard, then does what the test wants.
# Whoever runs the tests in the background has SIGINT ignored, which children inherit.
PARENT = """
import signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from e2e.cluster.processes import Process
folder = Path(sys.argv[1])
def start():
    global process
    command = f"echo $$ >{folder}/pid; exec sleep 600"
    process = Process.start(["/bin/sh", "-c", command], log=folder / "log", record=folder / "record")
"""


def until(condition: Callable[[], object], *, limit: float = 5.0) -> bool:
    deadline = Deadline(limit)
    while not condition() and deadline:
        time.sleep(0.02)
    return bool(condition())


def parent(folder: Path, then: str) -> tuple[subprocess.Popen[bytes], int]:
    """A Python process that has started a command, and the command's process id."""
    started = subprocess.Popen([sys.executable, "-c", PARENT + then, str(folder)])
    assert until(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
    return started, int((folder / "pid").read_text())


def sleeper(folder: Path, *, ignoring: str = "") -> tuple[Process, int]:
    """A process of ours, and the process id of its command."""
    trap = f"trap '' {ignoring};" if ignoring else ""
    command = f"{trap} echo $$ >{folder}/pid; sleep 600; sleep 600"
    process = Process.start(["/bin/sh", "-c", command], log=folder / "log", record=folder / "record")
    assert until(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
    return process, int((folder / "pid").read_text())


def gone(*pids: int) -> bool:
    return until(lambda: all(started_at(pid) is None for pid in pids))


@pytest.mark.parametrize("killed_by", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_a_command_is_gone_soon_after_its_parent_is_killed(tmp_path: Path, killed_by: signal.Signals) -> None:
    started, command = parent(tmp_path, "start(); time.sleep(600)")
    started.send_signal(killed_by)
    started.wait(5)
    assert gone(command)


def test_with_a_command_all_that_it_has_started_is_gone(tmp_path: Path) -> None:
    then = (
        "command = f'sleep 600 & echo $! >{folder}/pid; wait'; "
        "process = Process.start(['/bin/sh', '-c', command], log=folder / 'log'); time.sleep(600)"
    )
    started, grandchild = parent(tmp_path, then)
    started.kill()
    started.wait(5)
    assert gone(grandchild)


def test_a_command_is_gone_when_its_parent_forgets_it(tmp_path: Path) -> None:
    started, command = parent(tmp_path, "start(); time.sleep(0.2)")
    started.wait(5)
    assert gone(command)


def test_a_command_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    then = "each = threading.Thread(target=start); each.start(); each.join(); time.sleep(600)"
    started, command = parent(tmp_path, then)
    time.sleep(0.3)
    assert started_at(command) is not None
    started.kill()
    started.wait(5)
    assert gone(command)


def test_a_command_is_gone_when_its_guard_is_killed(tmp_path: Path) -> None:
    process, command = sleeper(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    assert gone(command)
    process.stop(1)


def test_a_released_command_goes_on_and_can_be_stopped_by_another_process(tmp_path: Path) -> None:
    started, command = parent(tmp_path, "start(); process.release()")
    started.wait(5)
    time.sleep(0.3)
    assert started_at(command) is not None
    process = Process.attach(tmp_path / "record")
    assert process is not None
    assert process.wait(0.1) is None
    process.stop(5)
    assert gone(command, process.pid)
    assert Process.attach(tmp_path / "record") is None


def test_stop_asks_first_and_kills_what_does_not_listen(tmp_path: Path) -> None:
    process, command = sleeper(tmp_path, ignoring="TERM")
    began = time.monotonic()
    process.stop(0.3)
    assert 0.3 <= time.monotonic() - began < 30
    assert gone(command, process.pid)
    assert not (tmp_path / "record").exists()


def test_stopping_twice_is_fine(tmp_path: Path) -> None:
    process, _ = sleeper(tmp_path)
    process.stop(5)
    process.stop(5)
    assert not process.running()


@pytest.mark.parametrize(("command", "status"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_the_status_is_that_of_the_command(tmp_path: Path, command: str, status: int) -> None:
    process = Process.start(["/bin/sh", "-c", command], log=tmp_path / "log")
    assert process.wait(5) == status
    process.stop(1)


def test_output_is_appended_to_the_log(tmp_path: Path) -> None:
    for text in ("one", "two"):
        process = Process.start(["/bin/sh", "-c", f"echo {text}; echo {text}! >&2"], log=tmp_path / "log")
        assert process.wait(5) == 0
        process.stop(1)
    assert last_lines(tmp_path / "log", 3) == "one!\ntwo\ntwo!"


def test_a_missing_program_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        Process.start([tmp_path / "no-such-program"], log=tmp_path / "log")


def test_a_record_of_another_process_with_the_same_id_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "record").write_text(f"{os.getpid()} 1\n")
    assert Process.attach(tmp_path / "record") is None


@pytest.mark.parametrize("content", ["", "1", "x y"])
def test_a_broken_record_names_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "record").write_text(content)
    assert Process.attach(tmp_path / "record") is None


def test_a_log_that_is_missing_or_empty_is_said_to_be(tmp_path: Path) -> None:
    assert "does not exist" in last_lines(tmp_path / "log")
    (tmp_path / "log").touch()
    assert "is empty" in last_lines(tmp_path / "log")
