"""Tells what is done while it is done: every command is printed as one could type it, then run by the shell."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

TAIL = 15
"""Lines of a log that are shown when a step fails."""
SHELL = ("bash", "-euo", "pipefail", "-c")


class StepFailedError(Exception):
    """A command of a step did not do what it should; its output has been shown. `log` may tell why."""

    def __init__(self, why: str, *, log: Path | None = None) -> None:
        super().__init__(why)
        self.log = log


@dataclass
class Narrator:
    """Runs the commands of the demo in one folder and one environment, and tells about them on `out`."""

    folder: Path
    environment: dict[str, str]
    out: TextIO = field(default_factory=lambda: sys.stdout)
    started: float = field(default_factory=time.monotonic)
    title: str = ""

    def step(self, title: str) -> None:
        """Begin a step: its title stands before its commands, with the seconds since the beginning."""
        self.title = title
        self.say(self._styled(f"\n[{time.monotonic() - self.started:4.0f} s] {title}", "1"))

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=self.out, flush=True)

    def run(self, line: str, *, log: Path | None = None, timeout: float = 600) -> str:
        """Run a command line; print and return what it says.

        Raises StepFailedError where it exits with another code than 0 or takes longer than `timeout` seconds.
        """
        self._show(line)
        said = self._done(line, log=log, timeout=timeout)
        self._indented(said)
        return said

    def let(self, variable: str, line: str) -> str:
        """Keep what a command says in a variable of the environment; it is not shown.

        Raises StepFailedError as `run` does.
        """
        self._show(f"export {variable}=$({line})")
        self.environment[variable] = self._done(line, log=None, timeout=60).strip()
        return self.environment[variable]

    def start(self, line: str, *, log: Path) -> subprocess.Popen[bytes]:
        """Start a command line in the background, in a process group of its own; what it says goes to `log`."""
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
        """Show the last lines of a log."""
        self.say(f"The last lines of {log}:")
        lines = log.read_text(errors="replace").splitlines()[-TAIL:] if log.exists() else []
        self._indented("\n".join(lines) or "(empty)")

    def _done(self, line: str, *, log: Path | None, timeout: float) -> str:
        try:
            done = subprocess.run(
                (*SHELL, line),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **self.environment},
                cwd=self.folder,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StepFailedError(f"the command did not end within {timeout:.0f} s", log=log) from error
        if done.returncode:
            self._indented(done.stdout)
            raise StepFailedError(f"the command exited with code {done.returncode}", log=log)
        return done.stdout

    def _show(self, line: str) -> None:
        self.say(self._styled(f"  $ {line}", "36"))

    def _indented(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            self.say(f"    {line}")

    def _styled(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.out.isatty() else text
