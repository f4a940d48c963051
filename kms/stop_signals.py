"""SIGTERM and SIGINT wait until the process can handle them.

Without a handler they kill a process without cleanup, or are lost where it is the first one of its container, whose
signals the kernel ignores by default. So a program blocks them as it starts, and unblocks them while its handlers are
installed. A signal that comes in between is delivered then. A forked process starts with them blocked, too.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def blocked() -> Iterator[None]:
    """Block the signals for this thread and those that it starts. Afterwards they are as they were before."""
    with _mask(signal.SIG_BLOCK):
        yield


@contextmanager
def unblocked() -> Iterator[None]:
    """Let the signals in: their handlers are installed. Afterwards they are as they were before."""
    with _mask(signal.SIG_UNBLOCK):
        yield


@contextmanager
def _mask(how: int) -> Iterator[None]:
    before = signal.pthread_sigmask(how, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
