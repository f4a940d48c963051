"""What processes have used so far: CPU and resident memory, from /proc."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PROC = Path("/proc")

# Positions in /proc/<pid>/stat counted after the command name, which may hold anything, even spaces and parentheses.
PARENT, UTIME, STIME, RESIDENT = 1, 11, 12, 21
# In the first line of /proc/stat, after "cpu": user, nice, system, idle, iowait, irq, softirq. Guests are in user.
BUSY = (0, 1, 2, 5, 6)


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU in seconds since the start, user and system of all threads, and resident memory in octets."""

    cpu: float = 0.0
    resident: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.cpu + other.cpu, self.resident + other.resident)


def fields(stat: str) -> list[str]:
    """The fields of a line of /proc/<pid>/stat after the command name."""
    return stat.rpartition(")")[2].split()


def parsed(stat: str) -> Usage:
    """What a line of /proc/<pid>/stat says."""
    values = fields(stat)
    return Usage((int(values[UTIME]) + int(values[STIME])) / TICKS, int(values[RESIDENT]) * PAGE)


def stats(proc: Path = PROC) -> dict[int, str]:
    """The stat lines of all processes. One that ends meanwhile is left out."""
    found = {}
    for each in proc.iterdir():
        if each.name.isdecimal():
            try:
                found[int(each.name)] = (each / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def family(pid: int, lines: Mapping[int, str]) -> set[int]:
    """The process and all that descend from it."""
    members, grown = {pid} & lines.keys(), True
    while grown:
        children = {each for each, line in lines.items() if int(fields(line)[PARENT]) in members}
        grown = not children <= members
        members |= children
    return members


def usages(pids: Mapping[str, int], *, proc: Path = PROC) -> dict[str, Usage]:
    """What each of some named processes uses together with its living descendants: a program and its guard are one.

    Raises:
        ProcessLookupError: if one has ended: a server that has died must not look cheap.
    """
    lines = stats(proc)
    found = {}
    for name, pid in pids.items():
        members = family(pid, lines)
        if not members:
            raise ProcessLookupError(f"{name} (process {pid}) has ended")
        found[name] = sum((parsed(lines[each]) for each in members), Usage())
    return found


def peak(pid: int, *, proc: Path = PROC) -> int:
    """The most resident memory, in octets, that a process has ever had."""
    for line in (proc / str(pid) / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")


def own(*, proc: Path = PROC) -> Usage:
    """What this process uses, without its children."""
    return parsed((proc / str(os.getpid()) / "stat").read_text())


def machine(*, proc: Path = PROC) -> float:
    """CPU in seconds that all processes of the machine have used since it was started."""
    ticks = (proc / "stat").read_text().split(maxsplit=11)[1:]
    return sum(int(ticks[each]) for each in BUSY) / TICKS


def cores() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def processor(*, proc: Path = PROC) -> str:
    """What the kernel calls the CPU."""
    for line in (proc / "cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "an unknown processor"
