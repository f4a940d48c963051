"""The operator as a process of its own, so that it can be stopped, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from kms_operator.settings import OperatorSettings
from tests.support.eventually import deadline_in

_PROGRAM = """
import sys
from kms.address import Address
from kms.logs import configure
from kms_operator.main import run
from kms_operator.settings import OperatorSettings
configure("text", "info")
sys.exit(run({settings!r}))
"""


class OperatorProcess:
    """Starts at once; the log goes to `log`."""

    def __init__(self, settings: OperatorSettings, log: Path) -> None:
        self.log = log
        self._address = settings.metrics_listen
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(settings=settings)],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(os.environ),
            )

    def ready(self) -> bool:
        """What its readiness probe says."""
        try:
            with urllib.request.urlopen(f"http://{self._address}/readyz", timeout=2) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except OSError:
            return False

    def stop(self, *, seconds: float = 10.0) -> int:
        """Ask it to end, as Kubernetes does; returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(seconds)

    def kill(self) -> None:
        """End it without a word; nothing where it has ended already."""
        self._process.kill()
        self._process.wait()


def eventually(condition: Callable[[], object], *, seconds: float = 15.0, why: Callable[[], object] = str) -> None:
    """Return as soon as `condition()` is true; fail after `seconds` (of an idle machine) with `why()`."""
    deadline = deadline_in(seconds)
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)
