"""What a person sees while the demo runs its commands."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.demo.narrator import Narrator, StepFailedError
from e2e.demo.output import Lines, Waiting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clocked(io.StringIO):
    """Knows when each text was written."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[str, float] = {}

    def write(self, text: str) -> int:
        self.times.setdefault(text.strip(), time.monotonic())
        return super().write(text)


class Time:
    """Moves by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def narrator(folder: Path, out: io.StringIO, *, every: float = 15.0) -> Narrator:
    return Narrator(folder=folder, environment={"GREETING": "hello"}, out=out, every=every)


def test_a_command_and_its_output_are_shown_and_returned(tmp_path: Path) -> None:
    out = io.StringIO()
    tell = narrator(tmp_path, out)
    assert tell.run("echo $GREETING; echo from stderr >&2; pwd") == f"hello\nfrom stderr\n{tmp_path}\n"
    shown = "  $ echo $GREETING; echo from stderr >&2; pwd\n    hello\n    from stderr\n"
    assert out.getvalue() == f"{shown}    {tmp_path}\n"


def test_a_line_is_shown_before_the_command_ends(tmp_path: Path) -> None:
    out = Clocked()
    narrator(tmp_path, out).run("echo first; sleep 1; echo second")
    assert out.times["second"] - out.times["first"] > 0.8


def test_a_silent_command_is_shown_with_its_seconds(tmp_path: Path) -> None:
    out = io.StringIO()
    narrator(tmp_path, out, every=0.5).run("sleep 1.5; echo done")
    assert out.getvalue().splitlines()[1:] == ["    ... 1 s", "    done"]


def test_a_terminal_has_one_line_for_the_seconds_and_a_log_one_now_and_then() -> None:
    for out, shown in (
        (Terminal(), "\r\x1b[K    ... 8 s\r\x1b[K    ... 16 s\r\x1b[K"),
        (io.StringIO(), "    ... 16 s\n"),
    ):
        clock = Time()
        waiting = Waiting(out, 15.0, monotonic=clock)
        for _ in range(2):
            clock.now += 8
            waiting.tick()
        waiting.clear()
        assert out.getvalue() == shown


def test_lines_are_handed_on_when_they_are_complete_wherever_the_output_was_cut() -> None:
    shown: list[str] = []
    lines = Lines(shown.append)
    text = "grüße\n\nno end"
    for byte in text.encode():
        lines.take(bytes([byte]))
    assert shown == ["grüße", ""]
    assert not lines.take(b"")
    assert shown == ["grüße", "", "no end"]
    assert lines.text == text


def test_a_failed_command_ends_the_step_after_its_output(tmp_path: Path) -> None:
    out = io.StringIO()
    with pytest.raises(StepFailedError, match="exited with code 7") as failure:
        narrator(tmp_path, out).run("echo why; exit 7", log=tmp_path / "log")
    assert out.getvalue().endswith("    why\n")
    assert failure.value.log == tmp_path / "log"


def test_what_goes_into_a_variable_is_shown_only_if_it_fails(tmp_path: Path) -> None:
    out = io.StringIO()
    tell = narrator(tmp_path, out)
    assert tell.let("SECRET", "echo hidden") == tell.environment["SECRET"] == "hidden"
    assert out.getvalue() == "  $ export SECRET=$(echo hidden)\n"
    with pytest.raises(StepFailedError):
        tell.let("SECRET", "echo why; false")
    assert out.getvalue().endswith("    why\n")


def test_a_command_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(StepFailedError, match="did not end within 1 s"):
        narrator(tmp_path, io.StringIO()).run("echo $$ >pid; exec sleep 60", timeout=1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_command_with_progress_of_its_own_has_the_terminal(tmp_path: Path) -> None:
    """Its line is updated there; in a log its lines are shown as they come."""
    command = "test -t 1 && echo terminal || echo log"
    out = io.StringIO()
    narrator(tmp_path, out).watch(command, timeout=10)
    assert out.getvalue().endswith("    log\n")
    script = f"from e2e.demo.narrator import *\nNarrator(Path('.'), {{}}).watch({command!r}, timeout=10)"
    ours, theirs = pty.openpty()
    try:
        subprocess.run((sys.executable, "-c", script), stdin=subprocess.DEVNULL, stdout=theirs, check=True, timeout=30)
        assert os.read(ours, 4096).endswith(b"\r\nterminal\r\n")
    finally:
        os.close(ours)
        os.close(theirs)
