"""The control groups of a node, which namespaces.py creates and which outlive the namespaces."""

from __future__ import annotations

import os
import time
from pathlib import Path

from e2e.cluster.node import namespaces
from e2e.cluster.processes import Deadline

_LIMIT = 5.0


def remove(name: str) -> None:
    """Remove the groups with this name and all groups below. Their processes have ended, or are about to end.

    Raises:
        OSError: after five seconds, a group still has processes.
    """
    deadline = Deadline(_LIMIT)
    for top in found(name):
        for folder, _, _ in os.walk(top, topdown=False):
            _remove(Path(folder), deadline)


def found(name: str) -> list[Path]:
    """The existing groups with this name."""
    return [each.place / name for each in namespaces.hierarchies() if (each.place / name).is_dir()]


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
