"""Set up the target of a measurement.

`running_target` starts a cluster, the operator and the server, and stops them again. `external_target` describes a
running ACME server.
"""

from __future__ import annotations

import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from e2e.cluster import AuditLog, Cluster, CommandFailed, Process, Progress, running
from e2e.cluster.install import install
from e2e.load.keys import ExternalAccount
from e2e.load.measure import SERVER, Target
from e2e.load.processes import family, read_stats
from e2e.load.writes import NAMESPACE, Endpoint
from e2e.support.balancer import running_balancer
from e2e.support.enrollment import enrollment_of, external_account_of
from e2e.support.programs import RELEASE, START_LIMIT, Programs, running_programs

OPERATOR, BALANCER = "operator", "balancer"
NAME = "load"
"""The name of the profile and of the credential."""
MANIFESTS = Path(__file__).with_name("manifests.yaml")
POLL = 0.1


class SetUpFailed(Exception):
    """The target did not start; the text has the end of its log."""


class ServerRequests:
    """The requests of our server to the API server, from the audit log."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def mark(self) -> None:
        """Reset the count."""
        self._audit.mark()

    def counts(self) -> Counter[str]:
        """The number of requests since then, by kind, such as `update acmeorders/status`.

        Renewals of the Lease are left out, since they do not depend on orders.
        """
        counts: Counter[str] = Counter()
        for key, count in self._audit.counts(user=f"serviceaccount:{RELEASE}:kms-acme-server").items():
            resource = key.resource.partition(".")[0]
            if resource != "leases":
                counts[f"{key.verb} {resource}{'/' if key.subresource else ''}{key.subresource}"] += count
        return counts


@contextmanager
def running_target(progress: Progress) -> Iterator[Target]:
    """Start our server on a new cluster.

    Raises:
        SetUpFailed: if a resource does not become ready.
        ProgramFailed: if a program does not become ready.
        ClusterError: if the cluster does not start.
    """
    with tempfile.TemporaryDirectory(prefix="kms-acme-load-") as name:
        folder = Path(name)
        progress.say("starting a cluster, the operator and the server")
        with running(folder / "cluster", progress) as cluster:
            install(cluster)
            with running_programs(cluster, folder) as programs:
                yield configure(cluster, programs, plane=folder / "cluster")
                progress.say("stopping everything")


def configure(cluster: Cluster, programs: Programs, *, plane: Path) -> Target:
    """Apply the manifests, wait until they are ready, and read the directory URL and the credential.

    Raises:
        SetUpFailed: if a resource does not become ready.
    """
    cluster.kubectl("apply", "--filename", MANIFESTS)
    try:
        wanted = (f"certificateprofile/{NAME}", f"eabcredential/{NAME}")
        cluster.kubectl("wait", "--namespace", NAMESPACE, "--for=condition=Ready", "--timeout=60s", *wanted)
    except CommandFailed as error:
        end = programs.operator.end_of_log()
        raise SetUpFailed(f"{error}\nThe end of the operator's log:\n{end}") from error
    enrollment = enrollment_of(cluster, NAMESPACE, NAME)
    target = Target(
        name="kms-acme",
        directory_url=enrollment.directory_url,
        tls=enrollment.tls,
        external_account=external_account_of(cluster, NAMESPACE, NAME),
        http_port=programs.validation.http01_port,
        dns_port=programs.validation.dns_port,
        tls_alpn_port=programs.validation.tls_alpn01_port,
        pids={
            SERVER: guarded_pid(programs.server.guard),
            OPERATOR: guarded_pid(programs.operator.guard),
            **{component: component_pid(plane, component) for component in ("kube-apiserver", "etcd")},
        },
        requests=ServerRequests(cluster.audit()),
        floor_writes=Endpoint.read(cluster.kubeconfig_for("floor", NAMESPACE)),
    )
    return replace(target, replicas=partial(running_replicas, target, programs, plane.with_name("balancer.log")))


@contextmanager
def running_replicas(target: Target, programs: Programs, log: Path, count: int) -> Iterator[Target]:
    """Replace the first server by `count` replicas behind a load balancer.

    Raises:
        ProgramFailed: if a replica does not become ready.
        TimeoutError: if the balancer does not start.
    """
    programs.server.stop()
    # With peers, a single server would read live for a minute, until it knows that it has no peers.
    started = [programs.add_server(peers=count > 1) for _ in range(count)]
    try:
        for each in started:
            each.wait_until_ready()
        with running_balancer(started, log=log) as balancer:
            pids = {name: pid for name, pid in target.pids.items() if name != SERVER}
            replicas = {f"{SERVER} {number}": guarded_pid(each.guard) for number, each in enumerate(started, 1)}
            yield replace(
                target,
                name=f"{target.name}, {count} behind a load balancer",
                servers=(balancer.address,),
                pids={**replicas, **pids, BALANCER: guarded_pid(balancer.guard)},
                replicas=None,
            )
    finally:
        for each in started:
            programs.remove_server(each)


def external_target(
    directory_url: str,
    *,
    authority: Path | None,
    external_account: ExternalAccount | None,
    http_port: int,
    dns_port: int,
    tls_alpn_port: int,
    pids: Mapping[str, int],
) -> Target:
    """A running ACME server; `authority` is a PEM file to trust, None means the CAs of the system."""
    return Target(
        name=directory_url,
        directory_url=directory_url,
        tls=None if authority is None else ssl.create_default_context(cafile=str(authority)),
        external_account=external_account,
        http_port=http_port,
        dns_port=dns_port,
        tls_alpn_port=tls_alpn_port,
        pids=pids,
        lenient=True,
    )


def component_pid(plane: Path, component: str) -> int:
    """The process id of a component of the cluster in this folder.

    Raises:
        SetUpFailed: if it does not run.
    """
    if (process := Process.attach(plane / "run" / f"{component}.process")) is None:
        raise SetUpFailed(f"{component} does not run")
    return guarded_pid(process.pid)


def guarded_pid(guard: int) -> int:
    """The process id of the program under a guard, without the guard itself.

    Raises:
        SetUpFailed: if the program does not start.
    """
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if commands := family(guard, read_stats()) - {guard}:
            return min(commands)
        time.sleep(POLL)
    raise SetUpFailed(f"process {guard} has started nothing")
