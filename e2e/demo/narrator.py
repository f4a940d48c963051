"""Prints each command of the demo, then runs it in a shell.

Output appears line by line while the command runs. During silence, the elapsed seconds are shown.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from e2e.demo.output import Lines, Waiting

TAIL = 15
"""Number of log lines to show when a step fails."""
SHELL = ("bash", "-euo", "pipefail", "-c")
GRACE = 30.0
"""Seconds between SIGTERM and SIGKILL."""


class StepFailedError(Exception):
    """A command of a step failed; its output has been shown. `log` may have the reason."""

    def __init__(self, why: str, *, log: Path | None = None) -> None:
        super().__init__(why)
        self.log = log


@dataclass
class Narrator:
    """Runs the commands of the demo in one folder and one environment, and prints them on `out`."""

    folder: Path
    environment: dict[str, str]
    out: TextIO = field(default_factory=lambda: sys.stdout)
    every: float = 15.0
    """Seconds of silence before a progress line, if `out` is not a terminal."""
    started: float = field(default_factory=time.monotonic)
    title: str = ""

    def step(self, title: str) -> None:
        """Begin a step: print its title and the seconds since the start of the demo."""
        self.title = title
        self.say(self._styled(f"\n[{time.monotonic() - self.started:4.0f} s] {title}", "1"))

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=self.out, flush=True)

    def run(self, line: str, *, log: Path | None = None, timeout: float = 600) -> str:
        """Run a command line; print its output as it appears, and return it.

        Raises StepFailedError if it fails or takes longer than `timeout` seconds.
        """
        self._show(line)
        waiting = Waiting(self.out, self.every)

        def show(each: str) -> None:
            waiting.clear()
            self._indent(each)

        return self._output_of(line, log=log, timeout=timeout, show=show, wait=waiting.tick)

    def watch(self, line: str, *, timeout: float) -> None:
        """Run a command line that shows its own progress; it gets the terminal, if there is one.

        Raises StepFailedError like `run`.
        """
        self._show(line)
        if not self.out.isatty():
            self._output_of(line, log=None, timeout=timeout, show=self._indent, wait=lambda: None)
            return
        with self._running(line, stdout=self.out) as process:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired as error:
                raise _too_slow(timeout, None) from error
        _check(process, None)

    def let(self, variable: str, line: str) -> str:
        """Store the output of a command in an environment variable; print it only if the command fails.

        Raises StepFailedError like `run`.
        """
        self._show(f"export {variable}=$({line})")
        said: list[str] = []
        try:
            value = self._output_of(line, log=None, timeout=60, show=said.append, wait=lambda: None)
        except StepFailedError:
            self._indent("\n".join(said))
            raise
        self.environment[variable] = value.strip()
        return self.environment[variable]

    def start(self, line: str, *, log: Path) -> subprocess.Popen[bytes]:
        """Start a command line in the background, in its own process group, with its output in `log`."""
        self._show(f"{line} >{log.name} 2>&1 &")
        with log.open("wb") as output:
            return subprocess.Popen(
                (*SHELL, f"exec {line}"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                cwd=self.folder,
                start_new_session=True,
            )

    def tail(self, log: Path) -> None:
        """Print the last lines of a log."""
        self.say(f"The last lines of {log}:")
        lines = log.read_text(errors="replace").splitlines()[-TAIL:] if log.exists() else []
        self._indent("\n".join(lines) or "(empty)")

    def _output_of(
        self, line: str, *, log: Path | None, timeout: float, show: Callable[[str], None], wait: Callable[[], None]
    ) -> str:
        """Run a command line; call `show` for each line of output, and `wait` for each second of silence."""
        said, deadline = Lines(show), time.monotonic() + timeout
        with self._running(line, stdout=subprocess.PIPE) as process, selectors.DefaultSelector() as ready:
            assert process.stdout is not None
            ready.register(process.stdout, selectors.EVENT_READ)
            while True:
                if time.monotonic() > deadline:
                    raise _too_slow(timeout, log)
                if not ready.select(1.0):
                    wait()
                elif not said.take(os.read(process.stdout.fileno(), 1 << 16)):
                    break
            process.wait()
        _check(process, log)
        return said.text

    @contextmanager
    def _running(self, line: str, *, stdout: int | TextIO) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command line for the duration of the block."""
        with subprocess.Popen(
            (*SHELL, line),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.environment},
            cwd=self.folder,
        ) as process:
            try:
                yield process
            finally:
                _stop(process)

    def _show(self, line: str) -> None:
        self.say(self._styled(f"  $ {line}", "36"))

    def _indent(self, text: str) -> None:
        for line in text.split("\n"):
            self.say(f"    {line}".rstrip())

    def _styled(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.out.isatty() else text


def _check(process: subprocess.Popen[bytes], log: Path | None) -> None:
    if process.returncode:
        raise StepFailedError(f"the command exited with code {process.returncode}", log=log)


def _too_slow(timeout: float, log: Path | None) -> StepFailedError:
    return StepFailedError(f"the command did not end within {timeout:.0f} s", log=log)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a running command: SIGTERM, and SIGKILL after GRACE seconds."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        process.kill()
