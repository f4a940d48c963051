"""The operator as a process that tests stop and kill, and kubectl."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from e2e.cluster.cluster import Cluster
from e2e.cluster.ports import free_port
from kms.address import Address
from kms.resources.kept import KEPT_UNTIL
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, POLICIES, PROFILES
from kms_operator.settings import Intervals, OperatorSettings
from tests.support.eventually import eventually
from tests.support.manifests import manifest, text

RELEASE = "kms-acme"

_PROGRAM = """
import asyncio
import datetime
import faulthandler
import gc
import io
import signal
import sys
from kms.address import Address
from kms.logs import configure
from kms_operator.main import run
from kms_operator.settings import Intervals, OperatorSettings
configure("text", "info")

def show_what_waits(*_):
    faulthandler.dump_traceback()
    for each in gc.get_objects():
        if isinstance(each, asyncio.Task):
            stack = io.StringIO()
            each.print_stack(file=stack)
            if "kopf" not in stack.getvalue():
                sys.stderr.write(stack.getvalue())

signal.signal(signal.SIGUSR1, show_what_waits)
sys.exit(run({settings!r}, intervals={intervals!r}))
"""


class OperatorProcess:
    """A running operator with its log in `log`."""

    def __init__(self, settings: OperatorSettings, intervals: Intervals, log: Path) -> None:
        self.log = log
        self._address = settings.metrics_listen
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(settings=settings, intervals=intervals)],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(os.environ),
            )

    def ready(self) -> bool:
        """Whether its readiness probe succeeds."""
        try:
            with urllib.request.urlopen(f"http://{self._address}/readyz", timeout=2) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except OSError:
            return False

    def explain(self) -> str:
        """The end of its log, after what its threads and tasks are waiting for."""
        if self._process.poll() is not None:
            return f"ended with {self._process.returncode}:\n{self.log.read_text()[-20_000:]}"
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        return self.log.read_text()[-40_000:]

    def stop(self, *, seconds: float = 10.0) -> int:
        """Stop it with SIGTERM; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(seconds)

    @contextmanager
    def held(self) -> Iterator[None]:
        """It does nothing meanwhile: for what a test has to do before the operator does."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it, if it runs."""
        self._process.kill()
        self._process.wait()


def start_operator(cluster: Cluster, log: Path, *, hurried: bool = False, **settings: Any) -> OperatorProcess:
    """Start an operator with the rights that its ServiceAccount has in this cluster.

    A `hurried` one looks every two seconds at what it cannot watch.
    """
    usual = {
        "external_url": "https://localhost:8443",
        "namespace": RELEASE,
        "metrics_listen": Address("127.0.0.1", free_port()),
        "kubeconfig": str(cluster.kubeconfig_for("kms-acme-operator", RELEASE)),
    }
    hurry = Intervals(optional=2.0, optional_missing=2.0, longest_requeue=2.0, look=1.0)
    intervals = hurry if hurried else Intervals()
    return OperatorProcess(OperatorSettings(**{**usual, **settings}), intervals, log)


class Kubectl:
    """Runs kubectl in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def __call__(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        return self.cluster.kubectl("-n", self.namespace, *args, stdin=stdin, check=check)

    def apply(self, *manifests: dict[str, Any]) -> None:
        self("apply", "-f", "-", stdin=text(*manifests))

    def get(self, what: str, *, namespace: str = "") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.cluster.kubectl("-n", namespace or self.namespace, "get", what, "-o", "json")
        )
        return found

    def exists(self, what: str, *, namespace: str = "") -> bool:
        return bool(
            self.cluster.kubectl("-n", namespace or self.namespace, "get", what, "--ignore-not-found", "-o", "name")
        )

    def secret(self, name: str, *, namespace: str = "") -> dict[str, bytes]:
        data = self.get(f"secret/{name}", namespace=namespace)["data"]
        return {key: base64.b64decode(value) for key, value in data.items()}

    def reason(self, what: str, type_: str = "Ready") -> str:
        conditions = self.get(what).get("status", {}).get("conditions", [])
        return next((each["reason"] for each in conditions if each["type"] == type_), "")

    def becomes(self, what: str, reason: str, *, seconds: float = 15.0) -> None:
        eventually(lambda: self.reason(what) == reason, seconds=seconds, why=lambda: self("describe", what))

    def internal(self, prefix: str) -> list[str]:
        """The names of Secrets in the release namespace for resources of this namespace."""
        items = self.get("secrets", namespace=RELEASE)["items"]
        owner = "pki.kms.hanzo.ai/owner"
        return [
            each["metadata"]["name"]
            for each in items
            if each["metadata"]["name"].startswith(prefix)
            and each["metadata"].get("annotations", {}).get(owner, "").split(" ")[-1].startswith(f"{self.namespace}/")
        ]

    def is_kept(self, name: str) -> bool:
        """Whether that Secret of the release namespace is kept for a time, after its owner was deleted."""
        return KEPT_UNTIL in self.get(f"secret/{name}", namespace=RELEASE)["metadata"].get("annotations", {})

    def settle(self) -> None:
        """Apply an example of each configuration kind, and wait until Ready."""
        self.apply(*examples())
        self.becomes("eab/web", "Issued", seconds=30)
        self.becomes("kprof/web", "Ready")


def examples() -> list[dict[str, Any]]:
    """A manifest of each configuration kind."""
    return [
        manifest(AUTHORITIES, name="issuing"),
        manifest(POLICIES, name="web"),
        manifest(PROFILES, name="web"),
        manifest(CREDENTIALS, name="web"),
    ]
