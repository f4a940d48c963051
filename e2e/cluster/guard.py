"""Runs a command and kills it when the parent process ends.

A separate program with the standard library only, started by processes.py as `python -I -S guard.py -- COMMAND...`.
prctl in the parent would not work: the kernel ties PR_SET_PDEATHSIG to the *thread* that forked, and in parents like
pytest, threads come and go. The guard has a single thread.

The parent holds the other end of the guard's standard input, the lifeline:

* end of file: the parent has ended; the guard kills its process group, including itself;
* one byte: the parent releases the command (`up` keeps a cluster running); it runs until it ends or is stopped.

The guard forwards SIGTERM to the command. If the guard is killed, the kernel kills the command.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1
_LIFELINE = 0


def _die_with(parent: int, libc: ctypes.CDLL) -> None:
    """In the child, before exec: ask the kernel for SIGKILL when the guard ends; exit if it has already ended."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def run(command: list[str]) -> int:
    """Run the command and return its exit status (128 + signal number after a signal)."""
    libc, me = ctypes.CDLL(None), os.getpid()
    # A SIGTERM during the start of the child is forwarded later.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=lambda: _die_with(me, libc))  # noqa: PLW1509 - no threads here

    def hand_on(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    signal.signal(signal.SIGTERM, hand_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    ended = os.pidfd_open(child.pid)
    watched = [ended, _LIFELINE]
    while ended not in (ready := select.select(watched, [], [])[0]):
        if _LIFELINE in ready:
            watched.remove(_LIFELINE)
            if not os.read(_LIFELINE, 1):
                os.killpg(0, signal.SIGKILL)
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(run(sys.argv[2:]))
