"""Sets up what is measured: a cluster, our operator and our server in it, a profile and a credential; or nothing.

`ours` starts everything and takes it down again; `external` only describes a server that somebody else has started.
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
from e2e.load.processes import family, stats
from e2e.load.writes import NAMESPACE, Endpoint
from e2e.support.balancer import running_balancer
from e2e.support.enrollment import enrollment_of, external_account_of
from e2e.support.programs import RELEASE, START_LIMIT, Programs, running_programs

OPERATOR, BALANCER = "operator", "balancer"
NAME = "load"
"""What the profile and the credential are called."""
MANIFESTS = Path(__file__).with_name("manifests.yaml")
POLL = 0.1


class SetUpFailed(Exception):
    """What is to be measured did not come up; the text carries the end of its log."""


class ServerRequests:
    """What our server asked the API server, from the audit log."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def mark(self) -> None:
        """Count from now on."""
        self._audit.mark()

    def counts(self) -> Counter[str]:
        """How often since then, by what: `update acmeorders/status`.

        The lease that a server renews every few seconds, whatever it is asked, is no part of the cost of an order.
        """
        counts: Counter[str] = Counter()
        for key, count in self._audit.counts(user=f"serviceaccount:{RELEASE}:kms-acme-server").items():
            resource = key.resource.partition(".")[0]
            if resource != "leases":
                counts[f"{key.verb} {resource}{'/' if key.subresource else ''}{key.subresource}"] += count
        return counts


@contextmanager
def ours(progress: Progress) -> Iterator[Target]:
    """Our server on a cluster of its own, ready to be ordered from.

    Raises:
        SetUpFailed: if a resource of ours does not become ready.
        ProgramFailed: if a program of ours does not.
        ClusterError: if the cluster does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="kms-acme-load-") as name:
        folder = Path(name)
        progress.say("starting a cluster, the operator and the server")
        with running(folder / "cluster", progress) as cluster:
            install(cluster)
            with running_programs(cluster, folder) as programs:
                yield configured(cluster, programs, plane=folder / "cluster")
                progress.say("stopping everything")


def configured(cluster: Cluster, programs: Programs, *, plane: Path) -> Target:
    """Apply the manifests, wait until all is ready, read what a client is given.

    Raises:
        SetUpFailed: if a resource of ours does not become ready.
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
            SERVER: command_of(programs.server.guard),
            OPERATOR: command_of(programs.operator.guard),
            **{component: component_pid(plane, component) for component in ("kube-apiserver", "etcd")},
        },
        requests=ServerRequests(cluster.audit()),
        floor_writes=Endpoint.read(cluster.kubeconfig_for("floor", NAMESPACE)),
    )
    return replace(target, replicas=partial(replicated, target, programs, plane.with_name("balancer.log")))


@contextmanager
def replicated(target: Target, programs: Programs, log: Path, count: int) -> Iterator[Target]:
    """So many servers that know of each other, behind a balancer; the one from the beginning ends for good.

    Raises:
        ProgramFailed: if one of them does not become ready.
        TimeoutError: if the balancer does not.
    """
    programs.server.stop()
    # One that might have others would read what these may have changed, until a minute has shown that there are none.
    started = [programs.add_server(peers=count > 1) for _ in range(count)]
    try:
        for each in started:
            each.wait_until_ready()
        with running_balancer(started, log=log) as balancer:
            pids = {name: pid for name, pid in target.pids.items() if name != SERVER}
            replicas = {f"{SERVER} {number}": command_of(each.guard) for number, each in enumerate(started, 1)}
            yield replace(
                target,
                name=f"{target.name}, {count} behind a balancer",
                servers=(balancer.address,),
                pids={**replicas, **pids, BALANCER: command_of(balancer.guard)},
                replicas=None,
            )
    finally:
        for each in started:
            programs.remove_server(each)


def external(
    directory_url: str,
    *,
    authority: Path | None,
    external_account: ExternalAccount | None,
    http_port: int,
    dns_port: int,
    tls_alpn_port: int,
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
        tls_alpn_port=tls_alpn_port,
        pids=pids,
        lenient=True,
    )


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
