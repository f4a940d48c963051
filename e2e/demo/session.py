"""The files and processes of the demo. A later run can stop them, too."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import folders
from e2e.demo.given import Traces

CLUSTER = "demo"
"""Name of the demo's cluster."""
GRACE = 30.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class Session:
    """The demo's folder outside the tree, and the process groups that it started."""

    folder: Path

    @classmethod
    def of_user(cls) -> Session:
        """The session of the current user."""
        return cls(folders.state() / "demo")

    def begin(self) -> None:
        """Stop an earlier demo and create an empty folder."""
        self.end()
        self.folder.mkdir(parents=True, mode=0o700)

    @property
    def traces(self) -> Path:
        """The record of the demo's objects in the user's cluster."""
        return self.folder / "traces.json"

    def remember(self, process: subprocess.Popen[bytes]) -> None:
        """Record a process group, so that a later run can stop it."""
        self._write([*self._read(), process.pid])

    def end(self) -> None:
        """Stop the process groups, newest first, then the cluster, and remove the folder.

        In the user's cluster, remove the demo's objects. Raises GivenClusterError if that fails; the folder stays, so
        that a later call can retry.
        """
        for pid in reversed(self._read()):
            _stop_group(pid)
        if traces := Traces.read(self.traces):
            if others := traces.remove():
                print(f"These CustomResourceDefinitions stay, since they are in use: {' '.join(others)}")
        else:
            _stop_cluster()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _file(self) -> Path:
        return self.folder / "processes.json"

    def _read(self) -> list[int]:
        with suppress(FileNotFoundError):
            return [int(each) for each in json.loads(self._file.read_text())]
        return []

    def _write(self, pids: list[int]) -> None:
        self._file.write_text(json.dumps(pids))


def _stop_cluster() -> None:
    subprocess.run(
        [sys.executable, "-m", "e2e.cluster", "down", "--name", CLUSTER],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def _stop_group(pid: int) -> None:
    """Send SIGTERM, and SIGKILL after GRACE seconds."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            os.killpg(pid, 0)  # raises ProcessLookupError once the group is gone
            time.sleep(0.1)
        os.killpg(pid, signal.SIGKILL)
