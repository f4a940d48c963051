"""CPU time and resident memory of processes, from /proc."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PROC = Path("/proc")
CONTAINERFILE = Path(__file__).parents[2] / "deploy" / "Containerfile"

# Positions in /proc/<pid>/stat after the command name, which may contain spaces and parentheses.
PARENT, UTIME, STIME, RESIDENT = 1, 11, 12, 21
# In the first line of /proc/stat, after "cpu": user, nice, system, idle, iowait, irq, softirq. User includes guests.
BUSY = (0, 1, 2, 5, 6)


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since the start, user and system of all threads, and resident memory in bytes."""

    cpu: float = 0.0
    resident: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.cpu + other.cpu, self.resident + other.resident)


def fields(stat: str) -> list[str]:
    """The fields of a line of /proc/<pid>/stat after the command name."""
    return stat.rpartition(")")[2].split()


def parse_stat(stat: str) -> Usage:
    """Parse a line of /proc/<pid>/stat."""
    values = fields(stat)
    return Usage((int(values[UTIME]) + int(values[STIME])) / TICKS, int(values[RESIDENT]) * PAGE)


def read_stats(proc: Path = PROC) -> dict[int, str]:
    """Read the stat lines of all processes, except those that end meanwhile."""
    found = {}
    for each in proc.iterdir():
        if each.name.isdecimal():
            try:
                found[int(each.name)] = (each / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def family(pid: int, lines: Mapping[int, str]) -> set[int]:
    """The process and its descendants."""
    members, grown = {pid} & lines.keys(), True
    while grown:
        children = {each for each, line in lines.items() if int(fields(line)[PARENT]) in members}
        grown = not children <= members
        members |= children
    return members


def usages(pids: Mapping[str, int], *, proc: Path = PROC) -> dict[str, Usage]:
    """The usage of each process, together with its living descendants, so that a guard and its program count as one.

    Raises:
        ProcessLookupError: if a process has ended; a crashed server must not look cheap.
    """
    lines = read_stats(proc)
    found = {}
    for name, pid in pids.items():
        members = family(pid, lines)
        if not members:
            raise ProcessLookupError(f"{name} (process {pid}) has ended")
        found[name] = sum((parse_stat(lines[each]) for each in members), Usage())
    return found


def peak_memory(pid: int, *, proc: Path = PROC) -> int:
    """The peak resident memory of a process in bytes."""
    for line in (proc / str(pid) / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")


def own(*, proc: Path = PROC) -> Usage:
    """The usage of this process without its children."""
    return parse_stat((proc / str(os.getpid()) / "stat").read_text())


def machine(*, proc: Path = PROC) -> float:
    """The CPU seconds of all processes of the machine since its start."""
    ticks = (proc / "stat").read_text().split(maxsplit=11)[1:]
    return sum(int(ticks[each]) for each in BUSY) / TICKS


def cores() -> int:
    """The number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def processor(*, proc: Path = PROC) -> str:
    """The CPU model as the kernel names it."""
    for line in (proc / "cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "an unknown processor"


def interpreter(*, containerfile: Path = CONTAINERFILE) -> str:
    """The version and path of this Python, which runs operator and servers, too; and the version of the image's.

    A version that was built without optimisation takes 1.7 times the CPU time; only its path tells.
    """
    here = f"{platform.python_version()} of {Path(sys.executable).resolve()}"
    base = re.search(r"^ARG BASE=.*python:([\d.]+)", containerfile.read_text(encoding="utf-8"), re.MULTILINE)
    return f"{here} (the image has {base[1]})" if base else here
