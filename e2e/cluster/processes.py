"""Processes that end when they should: on stop(), at the latest with whoever started them (see guard.py)."""

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
    """When the kernel started a process, in clock ticks since boot; None if there is none (or only its zombie).

    Together with the process id it tells a process from a later one that was given the same id.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def last_lines(path: Path, count: int = 15) -> str:
    """The end of a log, for error messages; tells if there is none."""
    if not path.exists():
        return f"({path} does not exist)"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-count:]) or f"({path} is empty)"


class Process:
    """A command that runs under a guard, in a session (and process group) of its own, its output in a log.

    The identity is kept in a file, so another process may find it again by `attach`, to ask or to stop it.
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
        """Start a command; `log` is appended to. With `record`, write there who it is.

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
        """The process that a record names, or None if it has ended."""
        try:
            pid, ticks = map(int, record.read_text(encoding="ascii").split())
        except (FileNotFoundError, ValueError):
            return None
        return cls(pid, ticks, record=record) if started_at(pid) == ticks else None

    @property
    def pid(self) -> int:
        """Of the guard, which is also the id of the process group."""
        return self._pid

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return started_at(self._pid) == self._ticks

    def wait(self, limit: float) -> int | None:
        """Wait at most `limit` seconds for its end; the exit status, or None if it still runs.

        The status of a process that somebody else started cannot be known: then it is 0.
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
        """Ask it to end, wait `limit` seconds, then kill it with all of its group."""
        if self.running():
            os.kill(self._pid, signal.SIGTERM)
            if self.wait(limit) is None:
                self.kill()
        self._forget()

    def kill(self) -> None:
        """End it now, the way a crash would."""
        if self.running():
            os.killpg(self._pid, signal.SIGKILL)
            self.wait(_KILL_LIMIT)
        self._forget()

    def release(self) -> None:
        """Let it go on after the end of this process."""
        if self._own is not None and (lifeline := self._own.stdin) is not None:
            _say_goodbye(lifeline)

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
    """Run a command to its end, calling `tick` about once a second; its exit status, or None if it was too slow."""
    process, deadline = Process.start(command, log=log, env=env), Deadline(limit)
    try:
        while (status := process.wait(1.0)) is None and deadline:
            tick()
    finally:
        process.kill()
    return status


def _say_goodbye(lifeline: IO[bytes]) -> None:
    if not lifeline.closed:
        lifeline.write(b".")
        lifeline.close()


class Deadline:
    """A limit on waiting, in seconds from now."""

    def __init__(self, limit: float) -> None:
        self._end = time.monotonic() + limit

    def left(self) -> float:
        """Seconds until then, never negative."""
        return max(0.0, self._end - time.monotonic())

    def __bool__(self) -> bool:
        return self.left() > 0
