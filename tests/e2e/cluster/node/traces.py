"""What a node could leave behind on this machine."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Traces:
    """Links, routes, packet filter, mounts, control groups, kernel settings and files of this machine."""

    links: frozenset[str]
    routes: str
    filters: str
    mounts: str
    groups: frozenset[str]
    settings: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]

    @classmethod
    def now(cls) -> Traces:
        return cls(
            links=frozenset(each.name for each in Path("/sys/class/net").iterdir()),
            routes=Path("/proc/net/route").read_text(encoding="ascii"),
            filters=subprocess.check_output(["nft", "list", "tables"], env=with_system_path(), text=True),
            mounts=Path("/proc/self/mounts").read_text(encoding="utf-8"),
            groups=frozenset(str(each) for top in hierarchies() for each in top.place.iterdir() if _ours(each)),
            settings=tuple(Path("/proc/sys", each).read_text(encoding="ascii") for each in _SETTINGS),
            files=tuple(tuple(sorted(map(str, Path(each).glob("*")))) for each in _WRITTEN_TO),
        )


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


def none_left(folder: Path, before: Traces, *, limit: float) -> bool:
    """Whether, within so many seconds, no process of a folder is left, nor any other trace."""
    deadline = Deadline(limit)
    while (processes_of(folder) or Traces.now() != before) and deadline:
        time.sleep(0.05)
    assert Traces.now() == before
    return not processes_of(folder)


def _ours(group: Path) -> bool:
    return group.is_dir() and group.name.startswith(("kms-acme", "k8s.io"))
