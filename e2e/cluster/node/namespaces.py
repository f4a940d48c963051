"""The kernel namespaces of a node, which remove everything of the node when it ends.

A separate program with the standard library only, started by node.py under a guard:

    python -I -S namespaces.py hold RECORD SCRATCH CGROUP  create them, write the id of their init process to RECORD
        python -I -S namespaces.py enter RECORD -- COMMAND...  run a command in them

Processes, mounts, links, packet filter rules and the host name of a node belong to these namespaces. When their init
process ends, the kernel kills all other processes in them and removes everything else. Only the control groups below
CGROUP stay; cgroups.py removes them.

Fixed paths of container runtimes are overlays. The sysctls that a kubelet would change for the whole machine are
covered by files that already have the wanted values.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

NODE_NAME = "node"
PLACE = Path("/run/node")
"""The path of the node's folder inside; short, since socket names are limited."""

_PR_SET_PDEATHSIG = 1
_NEW = {
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "net": 0x40000000,
    "cgroup": 0x02000000,
    "pid": 0x20000000,
    "mnt": 0x00020000,
}
_LEAF = "init"
"""The control group of processes outside containers; version 2 requires a leaf."""
_NOT_CONTROLLERS = frozenset({"rw", "xattr", "clone_children", "cpuset_v2_mode"})
_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_FRESH = ("/run", "/var/log")
"""Mounts: empty file systems in memory."""
_COVERED = "/var/lib"
"""Mounts: the machine's folders under a writable overlay."""

_libc = ctypes.CDLL(None, use_errno=True)


class Hierarchy(NamedTuple):
    """A hierarchy of control groups. Version 1 has several, version 2 has one; a machine can have both."""

    place: Path
    version: str
    """The file system type, "cgroup" or "cgroup2"."""
    controllers: str

    def join(self, group: str) -> None:
        """Create a group below this one, if missing, and move this process to it."""
        made = self.place / group
        made.mkdir(exist_ok=True)
        for each in ("cpuset.cpus", "cpuset.mems"):
            if self.version == "cgroup" and (made / each).exists() and not (made / each).read_text().strip():
                (made / each).write_text((made.parent / each).read_text())  # required before a process can join
        (made / "cgroup.procs").write_text("0")


def hierarchies() -> list[Hierarchy]:
    """All mounted hierarchies."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, after = (part.split() for part in line.split(" - ", 1))
        place, version, options = Path(before[4]), after[0], after[2].split(",")
        if version in {"cgroup", "cgroup2"}:
            named = [each for each in options if each not in _NOT_CONTROLLERS and not each.startswith("release_agent=")]
            found[place] = Hierarchy(place, version, ",".join(named))
    return list(found.values())


def hold(record: Path, scratch: Path, group: str) -> int:
    """Create the namespaces and keep them until SIGTERM; return when all processes in them have ended."""
    for each in hierarchies():
        each.join(group)
    _checked(_libc.unshare(sum(_NEW.values())))
    for each in hierarchies():
        each.join(f"{group}/{_LEAF}")
    ready, told = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(ready)
        _init(scratch, lambda: os.write(told, b"."))
    os.close(told)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(init, signal.SIGKILL))
    if os.read(ready, 1):
        _write(record, f"{init}\n")
    return os.waitstatus_to_exitcode(os.waitpid(init, 0)[1])


def enter(record: Path, command: list[str]) -> int:
    """Run a command in the namespaces; its exit status (128 + signal number after a signal)."""
    init = int(record.read_text(encoding="ascii"))
    for each in [os.open(f"/proc/{init}/ns/{name}", os.O_RDONLY) for name in _NEW]:
        _checked(_libc.setns(each, 0))
        os.close(each)
    child = os.fork()
    if child == 0:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for hierarchy in hierarchies():
            hierarchy.join(_LEAF)
        os.execvp(command[0], command)  # noqa: S606 - the child is the command

    def hand_on(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    signal.signal(signal.SIGTERM, hand_on)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


def _init(scratch: Path, ready: Callable[[], object]) -> NoReturn:
    """Run as the init process: mount the file systems, then reap processes forever."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _mount_all(scratch)
    socket.sethostname(NODE_NAME)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
    ready()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        _collect()
        signal.sigwait({signal.SIGCHLD})


def _mount_all(scratch: Path) -> None:
    seen = hierarchies()
    _mount("--make-rprivate", "/")
    _mount("-t", "proc", "proc", "/proc")
    for number, (name, value) in enumerate(_SYSCTLS.items()):
        cover = scratch / f"sysctl-{number}"
        cover.write_text(f"{value}\n", encoding="ascii")
        if Path("/proc/sys", name).exists():
            _mount("--bind", cover, f"/proc/sys/{name}")
    for each in _FRESH:
        _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", each)
    PLACE.mkdir()
    _mount("--bind", scratch.parent, PLACE)
    upper, work = scratch / "written", scratch / "work"
    upper.mkdir()
    work.mkdir()
    _mount("-t", "overlay", "-o", f"lowerdir={_COVERED},upperdir={upper},workdir={work}", "overlay", _COVERED)
    for hierarchy in seen:  # again, with our own group as their root
        subprocess.run(["/bin/umount", hierarchy.place], check=True)
        options = ("-o", hierarchy.controllers) if hierarchy.version == "cgroup" else ()
        _mount("-t", hierarchy.version, *options, hierarchy.version, hierarchy.place)


def _collect() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["/bin/mount", *map(str, arguments)], check=True)


def _write(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="ascii")
    draft.replace(path)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main(arguments: list[str]) -> int:
    """Run one of the commands above."""
    if arguments[0] == "hold":
        return hold(Path(arguments[1]), Path(arguments[2]), arguments[3])
    return enter(Path(arguments[1]), arguments[arguments.index("--") + 1 :])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
