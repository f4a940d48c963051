"""Several processes in one container: a process uses one core, since Python runs one thread at a time.

Each worker is a replica like one in a pod of its own: it has its own watches, nonces, metrics and identity. They share
the public ports (SO_REUSEPORT: the kernel spreads connections), and nothing else but what all replicas share, the
Kubernetes API. So nothing has to be true of two workers that is not true of two pods.

The container lives and dies as a whole. If a worker ends, the others drain and the container ends, with an error: the
kubelet restarts it, with its backoff, and shows how often. A supervisor that restarted workers would hide crashes and
memory limits from those who look at pods.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType

from acme_server.main import ShutdownTimes, run
from acme_server.settings import ServerSettings
from kms import logs, stop_signals

logger = logging.getLogger(__name__)

_MARGIN = 5.0
"""Seconds beyond the longest shutdown after which a worker is killed."""


def _run_worker(settings: ServerSettings, parent: int) -> int:
    return run(settings, parent=parent)


def run_workers(
    settings: ServerSettings,
    *,
    run_worker: Callable[[ServerSettings, int], int] = _run_worker,
    grace: float | None = None,
) -> int:
    """Run the workers until SIGTERM or Ctrl-C, or until one of them ends.

    `run_worker` runs one until a signal comes, or the file descriptor is closed at its other end, and returns its exit
    code. It is called with the signals blocked, so that none comes before it has installed its handlers and unblocks
    them. A worker has `grace` seconds to shut down. Returns the exit code: 0, or 1 if a worker could not start or broke
    down.
    """
    grace = ShutdownTimes().longest + _MARGIN if grace is None else grace
    reading, writing = os.pipe()
    turns = os.memfd_create("turns")
    logs.take_turns(turns)  # before the fork: the workers write to the same stream as this process
    context = multiprocessing.get_context("fork")

    def begin(number: int) -> None:
        os.close(writing)
        sys.exit(run_worker(replace(settings.of_worker(number), turns=turns), reading))

    workers = [
        context.Process(target=begin, args=(number,), name=f"worker {number}") for number in range(settings.workers)
    ]
    with stop_signals.blocked():
        # Forked processes share the memory of what was imported before; collections must not write to it.
        gc.collect()
        gc.freeze()
        started = _start(workers)
        stopped = len(started) == len(workers) and _wait(started)
        for each in started:
            if each.is_alive():
                each.terminate()
        clean = _join(started, grace)
    return 0 if stopped and clean else 1


def _start(workers: Sequence[ForkProcess]) -> Sequence[ForkProcess]:
    """Start the workers, and return those that were started: all, unless the system refuses another process."""
    for started, each in enumerate(workers):
        try:
            each.start()
        except OSError as error:
            logger.error("a worker cannot start", extra={"worker": each.name, "error": str(error)})
            return workers[:started]
    return workers


def _wait(workers: Sequence[ForkProcess]) -> bool:
    """Wait until a signal comes, or until a worker ends, which is logged. Returns whether it was a signal.

    A later signal changes nothing: the workers are already told to end.
    """
    signalled, signal_sent = os.pipe()
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        os.write(signal_sent, b"x")

    # After the fork: the workers have handlers of their own.
    for number in stop_signals.STOP_SIGNALS:
        signal.signal(number, stop)
    with stop_signals.unblocked():
        wait([signalled, *(each.sentinel for each in workers)])
    if not stopped:
        for each in workers:
            if each.exitcode is not None:
                logger.error("a worker has ended", extra={"worker": each.name, "exit_code": each.exitcode})
    return stopped


def _join(workers: Sequence[ForkProcess], grace: float) -> bool:
    """Wait for all workers, and kill those that take longer than `grace` seconds. Whether all exit codes are 0."""
    deadline = time.monotonic() + grace
    for each in workers:
        each.join(max(0.0, deadline - time.monotonic()))
        if each.exitcode is None:
            each.kill()
            each.join()
            # Only now: it may have had the turn to write to the log.
            logger.error("a worker did not stop and was killed", extra={"worker": each.name})
    return all(each.exitcode == 0 for each in workers)
