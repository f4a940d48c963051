"""Namespaces of the kernel in which a node lives, so that nothing of it is left when it ends.

A program of its own, standard library only, started by node.py under a guard:

    python -I -S namespaces.py hold RECORD SCRATCH         make them, write the id of their init process to RECORD
    python -I -S namespaces.py enter RECORD -- COMMAND...  run a command in them

Processes, mounts, links, packet filter rules and the host name of a node belong to these namespaces. When their init
process ends, however that happens, the kernel kills every process in them, and all the rest goes with the last one.

What a kubelet would change for the whole machine (a few sysctls) is covered by files that already say what it wants.
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
from typing import NoReturn

NODE_NAME = "node"

_PR_SET_PDEATHSIG = 1
_NEW = {"mnt": 0x00020000, "uts": 0x04000000, "ipc": 0x08000000, "pid": 0x20000000, "net": 0x40000000}
_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_FRESH = ("/run", "/var/log")
"""Where container runtimes and kubelets write whatever they are told: empty file systems in memory."""

_libc = ctypes.CDLL(None, use_errno=True)


def hold(record: Path, scratch: Path) -> int:
    """Make the namespaces and keep them until SIGTERM; then everything in them has ended before this returns."""
    _checked(_libc.unshare(sum(_NEW.values())))
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
    """Run a command in the namespaces; its exit status (128 + signal number if one ended it)."""
    init = int(record.read_text(encoding="ascii"))
    opened = [os.open(f"/proc/{init}/ns/{name}", os.O_RDONLY) for name in ("uts", "ipc", "net", "pid", "mnt")]
    for each in opened:
        _checked(_libc.setns(each, 0))
        os.close(each)
    child = os.fork()
    if child == 0:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.execvp(command[0], command)  # noqa: S606 - the child is the command

    def hand_on(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    signal.signal(signal.SIGTERM, hand_on)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


def _init(scratch: Path, ready: Callable[[], object]) -> NoReturn:
    """The first process: lays out what the others see, then collects the ended ones for ever."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _mounts(scratch)
    socket.sethostname(NODE_NAME)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
    ready()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        _collect()
        signal.sigwait({signal.SIGCHLD})


def _mounts(scratch: Path) -> None:
    _mount("--make-rprivate", "/")
    _mount("-t", "proc", "proc", "/proc")
    for number, (name, value) in enumerate(_SYSCTLS.items()):
        cover = scratch / f"sysctl-{number}"
        cover.write_text(f"{value}\n", encoding="ascii")
        if Path("/proc/sys", name).exists():
            _mount("--bind", cover, f"/proc/sys/{name}")
    for each in _FRESH:
        _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", each)


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
    """See above."""
    if arguments[0] == "hold":
        return hold(Path(arguments[1]), Path(arguments[2]))
    return enter(Path(arguments[1]), arguments[arguments.index("--") + 1 :])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
