"""Processes that end on stop(), or with the process that started them (see guard.py)."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

GUARD = Path(__file__).with_name("guard.py")
_KILL_LIMIT = 5.0


def started_at(pid: int) -> int | None:
    """The start time of a process, in clock ticks since boot; None if it has ended, or is a zombie.

    It distinguishes a process from a later one with the same id.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def last_lines(path: Path, count: int = 15) -> str:
    """The end of a log for error messages, or a note that there is none."""
    if not path.exists():
        return f"({path} does not exist)"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-count:]) or f"({path} is empty)"


class Process:
    """A command under a guard, in its own session and process group, with its output in a log.

    With a record of its identity in a file, another process can `attach` to it.
    """

    def __init__(
        self, pid: int, ticks: int, *, record: Path | None = None, own: subprocess.Popen[bytes] | None = None
    ) -> None:
        self._pid = pid
        self._ticks = ticks
        self._record = record
        self._own = own

    @classmethod
    def start(
        cls,
        command: Sequence[str | Path],
        *,
        log: Path,
        record: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """Start a command and append its output to `log`. Write its identity to `record`, if given.

        Raises:
            FileNotFoundError: the program does not exist.
        """
        if not Path(command[0]).exists():
            raise FileNotFoundError(f"{command[0]} does not exist")
        with log.open("ab") as output:
            guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), "--", *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        process = cls(guard.pid, started_at(guard.pid) or 0, record=record, own=guard)
        if record is not None:
            record.write_text(f"{process._pid} {process._ticks}\n", encoding="ascii")
        return process

    @classmethod
    def attach(cls, record: Path) -> Self | None:
        """The process of a record, or None if it has ended."""
        try:
            pid, ticks = map(int, record.read_text(encoding="ascii").split())
        except (FileNotFoundError, ValueError):
            return None
        return cls(pid, ticks, record=record) if started_at(pid) == ticks else None

    @property
    def pid(self) -> int:
        """The process id of the guard, which is also the id of the process group."""
        return self._pid

    def running(self) -> bool:
        """Whether it still runs."""
        return started_at(self._pid) == self._ticks

    def wait(self, limit: float) -> int | None:
        """Wait at most `limit` seconds; the exit status, or None if it still runs.

        The status of an attached process is not available; it is 0.
        """
        if self._own is not None:
            try:
                return self._own.wait(limit)
            except subprocess.TimeoutExpired:
                return None
        return 0 if self._wait_foreign(limit) else None

    def _wait_foreign(self, limit: float) -> bool:
        try:
            descriptor = os.pidfd_open(self._pid)
        except ProcessLookupError:
            return True
        try:
            return not self.running() or bool(select.select([descriptor], [], [], limit)[0])
        finally:
            os.close(descriptor)

    def stop(self, limit: float) -> None:
        """Send SIGTERM; after `limit` seconds, kill its process group."""
        if self.running():
            os.kill(self._pid, signal.SIGTERM)
            if self.wait(limit) is None:
                self.kill()
        self._forget()

    def kill(self) -> None:
        """Kill its process group, as in a crash."""
        if self.running():
            os.killpg(self._pid, signal.SIGKILL)
            self.wait(_KILL_LIMIT)
        self._forget()

    def release(self) -> None:
        """Keep it running after the end of this process."""
        if self._own is not None and (lifeline := self._own.stdin) is not None:
            _release(lifeline)

    def _forget(self) -> None:
        if self._own is not None:
            self._own.wait(_KILL_LIMIT)
            if self._own.stdin is not None:
                self._own.stdin.close()
        if self._record is not None:
            self._record.unlink(missing_ok=True)


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    limit: float,
    tick: Callable[[], None],
    env: Mapping[str, str] | None = None,
) -> int | None:
    """Run a command, calling `tick` about once a second; its exit status, or None after `limit` seconds."""
    process, deadline = Process.start(command, log=log, env=env), Deadline(limit)
    try:
        while (status := process.wait(1.0)) is None and deadline:
            tick()
    finally:
        process.kill()
    return status


def _release(lifeline: IO[bytes]) -> None:
    if not lifeline.closed:
        lifeline.write(b".")
        lifeline.close()


class Deadline:
    """A time limit, in seconds from now."""

    def __init__(self, limit: float) -> None:
        self._end = time.monotonic() + limit

    def left(self) -> float:
        """The remaining seconds, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def __bool__(self) -> bool:
        return self.left() > 0
