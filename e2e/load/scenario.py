"""Sets up what is measured: a cluster, our operator and our server in it, a profile and a credential; or nothing.

`ours` starts everything and takes it down again; `external` only describes a server that somebody else has started.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import AuditLog, Cluster, CommandFailed, Process, Progress, running
from e2e.cluster.install import install
from e2e.cluster.ports import LOOPBACK, free_port
from e2e.cluster.processes import last_lines
from e2e.load.keys import ExternalAccount
from e2e.load.measure import SERVER, Target
from e2e.load.processes import family, stats
from e2e.load.writes import NAMESPACE, Endpoint

RELEASE = "kms-acme"
OPERATOR = "operator"
MANIFESTS = Path(__file__).with_name("manifests.yaml")
START_LIMIT = 60.0
STOP_LIMIT = 25.0
POLL = 0.1


class SetUpFailed(Exception):
    """What is to be measured did not come up; the text carries the end of its log."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Free ports of one scenario."""

    acme: int
    server_metrics: int
    operator_metrics: int
    http01: int
    dns: int

    @classmethod
    def free(cls) -> Ports:
        """Some that nobody uses."""
        return cls(*(free_port() for _ in range(5)))


class ServerRequests:
    """What our server asked the API server, from the audit log."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def mark(self) -> None:
        """Count from now on."""
        self._audit.mark()

    def counts(self) -> Counter[str]:
        """How often since then, by what: `update acmeorders/status`."""
        counts: Counter[str] = Counter()
        for key, count in self._audit.counts(user=f"serviceaccount:{RELEASE}:kms-acme-server").items():
            resource = key.resource.partition(".")[0]
            counts[f"{key.verb} {resource}{'/' if key.subresource else ''}{key.subresource}"] += count
        return counts


class Programs:
    """Our operator and our server, as processes of their own under the tokens of their ServiceAccounts."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.ports = Ports.free()
        self.pids: dict[str, int] = {}
        self._cluster = cluster
        self._folder = folder
        self._started: dict[str, Process] = {}

    @property
    def external_url(self) -> str:
        """Where clients reach the server."""
        return f"https://localhost:{self.ports.acme}"

    def start(self) -> None:
        """Start both; `pids` are theirs, not those of their guards."""
        ports = self.ports
        self._start(OPERATOR, f"--metrics-listen={LOOPBACK}:{ports.operator_metrics}")
        self._start(
            SERVER,
            f"--metrics-listen={LOOPBACK}:{ports.server_metrics}",
            f"--listen={LOOPBACK}:{ports.acme}",
            f"--dns-server={LOOPBACK}:{ports.dns}",
            f"--http01-port={ports.http01}",
            f"--validation-allow={LOOPBACK}/32",
        )

    def wait(self) -> None:
        """Wait until both are ready.

        Raises:
            SetUpFailed: if one is not in time, or has ended.
        """
        deadline = time.monotonic() + START_LIMIT
        for program, port in ((OPERATOR, self.ports.operator_metrics), (SERVER, self.ports.server_metrics)):
            while not is_ready(port):
                if not self._started[program].running() or time.monotonic() > deadline:
                    raise SetUpFailed(f"the {program} is not ready. The end of its log:\n{self.end_of_log(program)}")
                time.sleep(POLL)

    def stop(self) -> None:
        """Stop both, the server first."""
        for process in reversed(self._started.values()):
            process.stop(STOP_LIMIT)

    def end_of_log(self, program: str) -> str:
        """The last lines that a program has logged."""
        return last_lines(self._log(program))

    def _start(self, program: str, *options: str) -> None:
        kubeconfig = self._cluster.kubeconfig_for(f"kms-acme-{program}", RELEASE)
        common = (f"--kubeconfig={kubeconfig}", f"--namespace={RELEASE}", f"--external-url={self.external_url}")
        command = [sys.executable, "-m", "kms_acme", program, *common, "--log-format=json", *options]
        self._started[program] = Process.start(command, log=self._log(program))
        self.pids[program] = command_of(self._started[program].pid)

    def _log(self, program: str) -> Path:
        return self._folder / f"{program}.log"


@contextmanager
def ours(progress: Progress) -> Iterator[Target]:
    """Our server on a cluster of its own, ready to be ordered from.

    Raises:
        SetUpFailed: if a program or a resource of ours does not become ready.
        ClusterError: if the cluster does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="kms-acme-load-") as name:
        folder = Path(name)
        progress.say("starting a cluster, the operator and the server")
        with running(folder / "cluster", progress) as cluster:
            install(cluster)
            programs = Programs(cluster, folder)
            try:
                programs.start()
                yield configured(cluster, programs, plane=folder / "cluster")
            finally:
                progress.say("stopping everything")
                programs.stop()


def configured(cluster: Cluster, programs: Programs, *, plane: Path) -> Target:
    """Apply the manifests, wait until all is ready, read what a client is given.

    Raises:
        SetUpFailed: if a program or a resource of ours does not become ready.
    """
    cluster.kubectl("apply", "--filename", MANIFESTS)
    programs.wait()
    try:
        wanted = ("certificateprofile/load", "eabcredential/load")
        cluster.kubectl("wait", "--namespace", NAMESPACE, "--for=condition=Ready", "--timeout=60s", *wanted)
    except CommandFailed as error:
        raise SetUpFailed(f"{error}\nThe end of the operator's log:\n{programs.end_of_log(OPERATOR)}") from error
    secret = json.loads(cluster.kubectl("get", "secret", "load-eab", "--namespace", NAMESPACE, "--output=json"))
    data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    return Target(
        name="kms-acme",
        directory_url=data["directory-url"],
        tls=ssl.create_default_context(cadata=data["ca.crt"]),
        external_account=ExternalAccount.parse(data["kid"], data["secret"]),
        http_port=programs.ports.http01,
        dns_port=programs.ports.dns,
        pids={
            SERVER: programs.pids[SERVER],
            OPERATOR: programs.pids[OPERATOR],
            **{component: component_pid(plane, component) for component in ("kube-apiserver", "etcd")},
        },
        requests=ServerRequests(cluster.audit()),
        floor_writes=Endpoint.read(cluster.kubeconfig_for("floor", NAMESPACE)),
    )


def external(
    directory_url: str,
    *,
    authority: Path | None,
    external_account: ExternalAccount | None,
    http_port: int,
    dns_port: int,
    pids: Mapping[str, int],
) -> Target:
    """A server that runs already; `authority` is a PEM file to trust, None stands for what the system trusts."""
    return Target(
        name=directory_url,
        directory_url=directory_url,
        tls=None if authority is None else ssl.create_default_context(cafile=str(authority)),
        external_account=external_account,
        http_port=http_port,
        dns_port=dns_port,
        pids=pids,
        lenient=True,
    )


def is_ready(port: int) -> bool:
    """Whether /readyz is answered with 200 there."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def component_pid(plane: Path, component: str) -> int:
    """The process of a component of the cluster in this folder.

    Raises:
        SetUpFailed: if it does not run.
    """
    if (process := Process.attach(plane / "run" / f"{component}.process")) is None:
        raise SetUpFailed(f"{component} does not run")
    return command_of(process.pid)


def command_of(guard: int) -> int:
    """The process that a guard guards: the memory of the guard is no part of the program's.

    Raises:
        SetUpFailed: if it does not start.
    """
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if commands := family(guard, stats()) - {guard}:
            return min(commands)
        time.sleep(POLL)
    raise SetUpFailed(f"process {guard} has started nothing")
