"""Runs one command and sees to it that the command does not outlive whoever wanted it.

A program of its own, standard library only, started by processes.py as `python -I -S guard.py -- COMMAND...`. Why not
prctl in the parent: the kernel ties PR_SET_PDEATHSIG to the *thread* that forked, and parents like pytest have threads
that come and go. The guard has one thread only, so for its child the signal means what one expects.

The parent keeps the other end of the guard's standard input, the lifeline:

* end of file: the parent is gone, however it went; the guard's process group, itself included, is killed at once;
* one byte: the parent lets go on purpose (`up` leaves a cluster running); the command runs until it ends or is stopped.

SIGTERM is handed on to the command. If the guard itself is killed, the kernel kills the command.
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
    """In the child, before exec: ask the kernel for SIGKILL when the guard ends; too late if it has ended already."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def run(command: list[str]) -> int:
    """Run the command to its end and return its exit status (128 + signal number if one ended it)."""
    libc, me = ctypes.CDLL(None), os.getpid()
    # A SIGTERM that comes while the child starts waits until there is somebody to hand it on to.
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
