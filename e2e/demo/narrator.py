"""Tells what is done while it is done: every command is printed as one could type it, then run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

TAIL = 15
"""Lines of a log that are shown when a step fails."""


class StepFailed(Exception):
    """A command of a step did not do what it should; the output has been shown."""

    def __init__(self, why: str, *, log: Path | None = None) -> None:
        super().__init__(why)
        self.log = log


@dataclass
class Narrator:
    """Runs commands of the demo in one environment and tells about them on `out`."""

    environment: Mapping[str, str]
    folder: Path
    out: TextIO = field(default_factory=lambda: sys.stdout)
    started: float = field(default_factory=time.monotonic)
    title: str = ""

    def step(self, title: str) -> None:
        """Begin a step: its title stands before the commands, with the seconds since the beginning."""
        self.title = title
        self.say(self._styled(f"\n[{time.monotonic() - self.started:4.0f} s] {title}", "1"))

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=self.out, flush=True)

    def run(self, *command: str, stdin: str | None = None, quiet: bool = False, log: Path | None = None) -> str:
        """Print the command, run it, print and return what it says.

        Raises StepFailed where it exits with another code than 0; `log` names the log that may tell why.
        """
        self._show(command, "")
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **self.environment},
            cwd=self.folder,
            check=False,
        )
        if not quiet or done.returncode:
            self._indented(done.stdout)
        if done.returncode:
            raise StepFailed(f"{shlex.join(command)} exited with code {done.returncode}", log=log)
        return done.stdout

    def start(self, *command: str, log: Path) -> subprocess.Popen[bytes]:
        """Print the command and start it in the background, in a process group of its own; its output goes to `log`."""
        self._show(command, f" >{log.name} 2>&1 &")
        with log.open("wb") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                cwd=self.folder,
                start_new_session=True,
            )

    def tail(self, log: Path) -> None:
        """Show the last lines of a log."""
        self.say(f"the last lines of {log}:")
        self._indented("\n".join(log.read_text(errors="replace").splitlines()[-TAIL:]) if log.exists() else "(empty)")

    def _show(self, command: tuple[str, ...], suffix: str) -> None:
        self.say(self._styled(f"  $ {shlex.join(command)}{suffix}", "36"))

    def _indented(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            self.say(f"    {line}")

    def _styled(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.out.isatty() else text
