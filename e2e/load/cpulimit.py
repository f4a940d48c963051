"""Limit the CPU of processes by control groups of the kernel, of version 1 or 2. This needs root."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
_MEMBERS = "cgroup.procs"
PERIOD = 10_000
"""Microseconds. A process that has used its share waits for the next period, which is soon."""


class CannotLimit(Exception):
    """The kernel does not let us limit the CPU of a process; the text says why."""


@contextmanager
def limited(pids: Sequence[int], share: float, *, groups: Path = GROUPS) -> Iterator[None]:
    """Limit each process to this share of one core while the block runs.

    Raises:
        CannotLimit: without root, or without the controller `cpu`.
    """
    old = (groups / "cpu").is_dir()
    parent = groups / "cpu" if old else groups
    quota = str(round(PERIOD * share))
    limits = {"cpu.cfs_period_us": str(PERIOD), "cpu.cfs_quota_us": quota} if old else {"cpu.max": f"{quota} {PERIOD}"}
    with ExitStack() as stack:
        for pid in pids:
            group = parent / f"kms-acme-load-{os.getpid()}-{pid}"
            try:
                group.mkdir()
                stack.callback(group.rmdir)
                stack.callback(_move, pid, parent)
                for name, limit in limits.items():
                    (group / name).write_text(limit)
                (group / _MEMBERS).write_text(str(pid))
            except OSError as error:
                raise CannotLimit(f"a limit on CPU needs root and the controller cpu: {error}") from error
        yield


def _move(pid: int, group: Path) -> None:
    try:
        (group / _MEMBERS).write_text(str(pid))
    except ProcessLookupError:
        return  # it has ended, and left its group
