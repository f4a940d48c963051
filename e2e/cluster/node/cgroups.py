"""The control groups of a node: the one thing of it that namespaces do not take along when they end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from e2e.cluster.processes import Deadline

ROOT = Path("/sys/fs/cgroup")
_LIMIT = 5.0


def make(name: str) -> None:
    """Make a group of this name in every hierarchy (of version 1 there are several, of version 2 one)."""
    for each in _hierarchies():
        (each / name).mkdir(exist_ok=True)


def remove(name: str) -> None:
    """Remove the groups of this name and all below; the processes in them have ended, or are just about to.

    Raises:
        OSError: after five seconds there still was a process in one of them.
    """
    deadline = Deadline(_LIMIT)
    for top in found(name):
        for folder, _, _ in os.walk(top, topdown=False):
            _remove(Path(folder), deadline)


def found(name: str) -> list[Path]:
    """The groups of this name that are there."""
    return [each / name for each in _hierarchies() if (each / name).is_dir()]


def _remove(group: Path, deadline: Deadline) -> None:
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if not deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _hierarchies() -> Iterator[Path]:
    if (ROOT / "cgroup.controllers").exists():
        yield ROOT
        return
    yield from (each for each in ROOT.iterdir() if each.is_dir() and (each / "cgroup.procs").exists())
