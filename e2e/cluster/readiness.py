"""Waits until a component of a cluster is ready."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from pathlib import Path

from e2e.cluster.errors import StartFailed
from e2e.cluster.processes import Deadline, Process, last_lines

_POLL = 0.05


def wait_until(ready: Callable[[], bool], component: str, process: Process, *, log: Path, limit: float) -> None:
    """Wait until `ready` returns True.

    Raises:
        StartFailed: the process ends, or is not ready within `limit` seconds; the text has the end of its log.
    """
    deadline = Deadline(limit)
    while not ready():
        if not process.running() or not deadline:
            what = f"was not ready within {limit:.0f} s" if process.running() else "ended while it started"
            raise StartFailed(f"{component} {what}. The end of {log}:\n{last_lines(log)}")
        time.sleep(_POLL)


def is_ok(connection: http.client.HTTPConnection, path: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
