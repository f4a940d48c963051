"""The operator and servers as processes that tests start, stop, kill and restart.

    with running_programs(cluster, folder) as programs:
        second = programs.add_server(peers=True)
        programs.servers[0].kill()

Each program uses a token of its own ServiceAccount, as in a pod, which requires deploy/rbac.yaml. All servers share one
external URL, the address of the first server. A client reaches another server by sending requests for the external URL
to its `url` (see e2e.load.exchange.Exchange).
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster import Cluster, Process
from e2e.cluster.kubeconfig import Endpoint
from e2e.cluster.ports import LOOPBACK, free_port
from e2e.cluster.processes import last_lines

RELEASE = "kms-acme"
"""The release namespace."""
PEER_SERVICE = "kms-acme-peers"
START_LIMIT = 60.0
STOP_LIMIT = 40.0
"""More than the 25 seconds of a graceful shutdown, so that tests see the exit code."""
_POLL = 0.05


class ProgramFailed(Exception):
    """A program did not become ready, or does not run; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Validation:
    """The loopback ports for validation: those of a DNS server and of the servers that answer challenges."""

    dns_port: int
    http01_port: int
    tls_alpn01_port: int = field(default_factory=free_port)

    @property
    def options(self) -> tuple[str, ...]:
        """Command line options for `kms-acme server` and `kms-acme dev`."""
        return (
            f"--dns-server={LOOPBACK}:{self.dns_port}",
            f"--http01-port={self.http01_port}",
            f"--tls-alpn01-port={self.tls_alpn01_port}",
            "--validation-allow=127.0.0.0/8",
        )


class Program:
    """A program that keeps its ports and its log over restarts."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        metrics_port: int,
        log: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`command` are the arguments of `kms-acme`; without `env`, it inherits the environment."""
        self.name = name
        self.metrics_port = metrics_port
        self.log = log
        self._env = env
        self._command = (sys.executable, "-m", "kms_acme", *command, f"--metrics-listen={LOOPBACK}:{metrics_port}")
        self._process: Process | None = None

    @property
    def guard(self) -> int:
        """The process id of its guard (see e2e.cluster.guard); the program is a child of the guard.

        Raises:
            ProgramFailed: it was never started.
        """
        return self._started().pid

    def start(self) -> None:
        """Start it, unless it runs."""
        if not self.running():
            self._process = Process.start(self._command, log=self.log, env=self._env)

    def stop(self) -> int | None:
        """Stop it with SIGTERM; its exit code, or None if it did not run."""
        if self._process is None or not self._process.running():
            return None
        self._process.stop(STOP_LIMIT)
        return self._process.wait(0)

    def wait(self, limit: float) -> int | None:
        """Wait at most `limit` seconds; its exit code, or None if it still runs."""
        return self._started().wait(limit)

    def kill(self) -> None:
        """Kill it with SIGKILL. Its ports are free afterwards."""
        if self._process is not None:
            self._process.kill()
            _wait_for_the_end_of_group(self._process.pid)

    def restart(self) -> None:
        """Restart it, and wait until it is ready."""
        self.stop()
        self.start()
        self.wait_until_ready()

    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.running()

    def ready(self) -> bool:
        """Whether /readyz answers 200."""
        try:
            return self.get("/readyz")[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def wait_until_ready(self, limit: float = START_LIMIT) -> None:
        """Wait until it is ready.

        Raises:
            ProgramFailed: it has ended, or was not ready in `limit` seconds.
        """
        deadline = time.monotonic() + limit
        while not self.ready():
            if not self.running() or time.monotonic() > deadline:
                what = "is not ready" if self.running() else "has ended"
                raise ProgramFailed(f"the {self.name} {what}. The end of its log:\n{self.end_of_log()}")
            time.sleep(_POLL)

    def get(self, path: str) -> tuple[int, str]:
        """Fetch a path on the port of /metrics, /healthz and /readyz; its status and body.

        Raises:
            OSError: nothing listens on the port.
            http.client.HTTPException: the answer is not HTTP.
        """
        connection = http.client.HTTPConnection(LOOPBACK, self.metrics_port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8")
        finally:
            connection.close()

    def end_of_log(self, lines: int = 15) -> str:
        """The last lines of its log."""
        return last_lines(self.log, lines)

    def _started(self) -> Process:
        if self._process is None:
            raise ProgramFailed(f"the {self.name} was never started")
        return self._process


class Server(Program):
    """An ACME server; `port` is for ACME clients, `http_port` for CRLs and CA certificates over HTTP."""

    def __init__(
        self, name: str, command: Sequence[str], *, port: int, http_port: int, metrics_port: int, log: Path
    ) -> None:
        listens = f"--listen={LOOPBACK}:{port}", f"--http-listen={LOOPBACK}:{http_port}"
        super().__init__(name, (*command, *listens), metrics_port=metrics_port, log=log)
        self.port = port
        self.http_port = http_port

    @property
    def url(self) -> str:
        """Its own address, which no resource URL contains."""
        return f"https://{LOOPBACK}:{self.port}"


class Programs:
    """The operator and the servers of an installation, initially one server."""

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        *,
        validation: Validation | None = None,
        log_level: str = "info",
        server_options: Sequence[str] = (),
    ) -> None:
        """Prepare the programs without starting them. `folder` is for their logs."""
        self.validation = validation or Validation(dns_port=free_port(), http01_port=free_port())
        self._cluster = cluster
        self._folder = folder
        self._log_level = log_level
        self._server_options = tuple(server_options)
        self._kubeconfigs: dict[str, Path] = {}
        self._first_port, self._first_http_port = free_port(), free_port()
        self.operator = Program(
            "operator",
            (*self._command("operator"), f"--http-url={self.http_url}", "--open-profiles-from=*"),
            metrics_port=free_port(),
            log=folder / "operator.log",
        )
        self.servers: list[Server] = []
        self._new_server(self._first_port, self._first_http_port)

    @property
    def external_url(self) -> str:
        """The external URL of all servers."""
        return f"https://localhost:{self._first_port}"

    @property
    def http_url(self) -> str:
        """The base URL of CRLs in certificates."""
        return f"http://localhost:{self._first_http_port}"

    @property
    def server(self) -> Server:
        """The first server."""
        return self.servers[0]

    @property
    def all(self) -> tuple[Program, ...]:
        """Operator and servers."""
        return (self.operator, *self.servers)

    def start(self) -> None:
        """Start all programs without waiting until they are ready."""
        for each in self.all:
            each.start()

    def wait_until_ready(self) -> None:
        """Wait until all are ready.

        Raises:
            ProgramFailed: one of them does not become ready.
        """
        for each in self.all:
            each.wait_until_ready()

    def restart(self) -> None:
        """Restart all programs, and wait until they are ready.

        Raises:
            ProgramFailed: one of them does not become ready.
        """
        self.stop()
        self.start()
        self.wait_until_ready()

    def stop(self) -> None:
        """Stop the servers, then the operator."""
        for each in reversed(self.all):
            each.stop()

    def add_server(self, *, peers: bool = False, api: Endpoint | None = None, workers: int = 1) -> Server:
        """Start another server without waiting until it is ready.

        With `peers`, servers find each other by EndpointSlices of the Service PEER_SERVICE. `api` is another address of
        the API server.
        """
        options: tuple[str, ...] = (f"--peer-service={PEER_SERVICE}",) if peers else ()
        if workers > 1:
            options += (f"--workers={workers}",)
        if api is not None:
            options += (f"--kubeconfig={self._cluster.kubeconfig_for('kms-acme-server', RELEASE, endpoint=api)}",)
        server = self._new_server(free_port(), free_port(), *options)
        if peers:
            self._cluster.kubectl("apply", "--filename=-", stdin=json.dumps(_peer(server)))
        server.start()
        return server

    def remove_server(self, server: Server) -> None:
        """Stop and remove a server, like the deletion of its pod."""
        server.stop()
        self._cluster.kubectl(
            "delete", "endpointslice", _slice_name(server), f"--namespace={RELEASE}", "--ignore-not-found"
        )
        self.servers.remove(server)

    def _new_server(self, port: int, http_port: int, *options: str) -> Server:
        name = f"server-{len(self.servers) + 1}"
        server = Server(
            name,
            (
                *self._command("server"),
                f"--http-url={self.http_url}",
                *self.validation.options,
                *self._server_options,
                *options,
            ),
            port=port,
            http_port=http_port,
            metrics_port=free_port(),
            log=self._folder / f"{name}-{port}.log",
        )
        self.servers.append(server)
        return server

    def _command(self, program: str) -> tuple[str, ...]:
        if program not in self._kubeconfigs:
            self._kubeconfigs[program] = self._cluster.kubeconfig_for(f"kms-acme-{program}", RELEASE)
        return (
            program,
            f"--kubeconfig={self._kubeconfigs[program]}",
            f"--namespace={RELEASE}",
            f"--external-url={self.external_url}",
            "--log-format=json",
            f"--log-level={self._log_level}",
        )


@contextmanager
def running_programs(
    cluster: Cluster,
    folder: Path,
    *,
    validation: Validation | None = None,
    log_level: str = "info",
    server_options: Sequence[str] = (),
) -> Iterator[Programs]:
    """Run the operator and one server for the duration of the block; both are ready.

    Raises:
        ProgramFailed: one of them does not become ready.
    """
    programs = Programs(cluster, folder, validation=validation, log_level=log_level, server_options=server_options)
    try:
        programs.start()
        programs.wait_until_ready()
        yield programs
    finally:
        programs.stop()


def _wait_for_the_end_of_group(group: int) -> None:
    """Wait until the program, killed with its guard, has released its ports."""
    deadline = time.monotonic() + STOP_LIMIT
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(_POLL)


def _slice_name(server: Server) -> str:
    return f"{PEER_SERVICE}-{server.port}"


def _peer(server: Server) -> dict[str, object]:
    """The EndpointSlice with the address of a server for its peers.

    Kubernetes rejects loopback addresses as IPv4 endpoints, but accepts them as host names.
    """
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": _slice_name(server),
            "namespace": RELEASE,
            "labels": {"kubernetes.io/service-name": PEER_SERVICE},
        },
        "addressType": "FQDN",
        "ports": [{"name": "peers", "port": server.metrics_port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [LOOPBACK], "conditions": {"ready": True}}],
    }
