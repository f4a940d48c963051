"""What a node could leave behind on this machine."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from e2e.cluster.node.machine import with_system_path
from e2e.cluster.node.namespaces import hierarchies
from e2e.cluster.processes import Deadline

_WRITTEN_TO = (
    "/var/lib/kubelet",
    "/var/lib/cni/results",
    "/var/lib/containerd",
    "/run/containerd",
    "/var/log/pods",
    "/opt",
)
_SETTINGS = ("kernel/panic", "vm/overcommit_memory", "vm/panic_on_oom", "net/ipv4/ip_forward")


def traces() -> frozenset[str]:
    """Links, routes, packet filter, mounts, control groups, kernel settings and files: each with its kind."""
    filters = subprocess.check_output(["nft", "list", "tables"], env=with_system_path(), text=True)
    found = {
        "link": (each.name for each in Path("/sys/class/net").iterdir()),
        "route": Path("/proc/net/route").read_text(encoding="ascii").splitlines(),
        "filter": filters.splitlines(),
        "mount": Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines(),
        "group": (str(each) for top in hierarchies() for each in top.place.iterdir() if _ours(each)),
        "setting": (f"{each} {Path('/proc/sys', each).read_text(encoding='ascii')}" for each in _SETTINGS),
        "file": (str(each) for place in _WRITTEN_TO for each in Path(place).glob("*")),
    }
    return frozenset(f"{kind} {what}" for kind, those in found.items() for what in those)


def processes_of(folder: Path) -> set[int]:
    """Process ids of everything whose command line names this folder."""
    found = set()
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                if str(folder).encode() in (each / "cmdline").read_bytes():
                    found.add(int(each.name))
            except OSError:
                continue
    return found - {os.getpid()}


def left(folder: Path, before: frozenset[str], *, limit: float) -> set[str]:
    """What, after so many seconds at most, still is there and was not before, processes of a folder among it.

    What was there before may be gone: another node on this machine may have ended meanwhile.
    """
    deadline = Deadline(limit)
    while (found := traces() - before | {f"process {each}" for each in processes_of(folder)}) and deadline:
        time.sleep(0.05)
    return set(found)


def _ours(group: Path) -> bool:
    return group.is_dir() and group.name.startswith(("kms-acme", "k8s.io"))
