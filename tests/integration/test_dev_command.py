"""`kms-acme dev --install` on an empty cluster: both programs, each under its own identity, and a clean end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.cluster import Cluster, CommandFailed
from e2e.cluster.ports import LOOPBACK, free_port
from e2e.load.processes import family, read_stats
from e2e.support import dns, http01
from e2e.support.programs import RELEASE, START_LIMIT, Program, Validation
from tests.support.installation import ZONE, Site

CONTROLLERS = ("system:kube-controller-manager", "system:serviceaccount:kube-system:")
"""Who else looks at our kinds: Kubernetes collects what lost its owner."""

GRACE = 25.0
"""Seconds in which both programs have ended."""


@dataclass(frozen=True)
class Development(Site):
    """A cluster that was empty, and the command that runs on it."""

    command: Program
    operator: Program
    folder: Path

    def kubeconfig(self, program: str) -> Path:
        """What the command has written for one of the two programs."""
        (found,) = self.folder.glob(f"*/kms-acme-{program}.kubeconfig")
        return found

    def start(self) -> None:
        """Run the command and wait until both programs are ready."""
        self.command.start()
        self.command.wait_until_ready()
        deadline = time.monotonic() + START_LIMIT
        while not self.operator.ready():
            assert time.monotonic() < deadline, self.command.end_of_log()
            time.sleep(0.1)

    def processes(self) -> set[int]:
        """The command and its programs."""
        return family(self.command.guard, read_stats()) - {self.command.guard}


@pytest.fixture(scope="module")
def development(
    clusters: Callable[..., AbstractContextManager[Cluster]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Development]:
    folder, answerer = tmp_path_factory.mktemp("dev"), http01.Answerer()
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(clusters())
        if not cluster.is_ours:
            pytest.skip("installs into an empty cluster, which one of your own is not")
        nameserver = stack.enter_context(dns.serving(dns.Zone(ZONE)))
        http01_port = stack.enter_context(http01.serving(answerer))
        validation = Validation(dns_port=int(nameserver.rpartition(":")[2]), http01_port=http01_port)
        operator_port = free_port()
        command = Program(
            "dev command",
            (
                "dev",
                "--install",
                f"--listen={LOOPBACK}:{free_port()}",
                f"--http-listen={LOOPBACK}:{free_port()}",
                f"--operator-metrics-listen={LOOPBACK}:{operator_port}",
                *validation.options,
            ),
            metrics_port=free_port(),
            log=folder / "dev.log",
            env={**os.environ, **cluster.env, "TMPDIR": str(folder)},
        )
        operator = Program("operator", (), metrics_port=operator_port, log=command.log)  # only to be asked
        stack.callback(command.kill)
        yield Development(cluster=cluster, answerer=answerer, command=command, operator=operator, folder=folder)


@pytest.fixture
def running(development: Development) -> Development:
    development.start()
    return development


async def test_one_command_on_an_empty_cluster_is_enough_to_obtain_a_certificate(running: Development) -> None:
    running.cluster.kubectl("create", "namespace", "team")
    enrollment = running.profile("team")
    external_account = running.credential("team")
    async with running.client(enrollment, external_account=external_account) as client:
        await client.obtain(["developed.test"], running.answerer.add)


@pytest.mark.requirement("SEC57")
@pytest.mark.parametrize("program", ["operator", "server"])
def test_each_program_acts_as_its_own_service_account(running: Development, program: str) -> None:
    whoami = running.cluster.kubectl(
        "--kubeconfig", running.kubeconfig(program), "auth", "whoami", "--output=jsonpath={.status.userInfo.username}"
    )
    assert whoami == f"system:serviceaccount:{RELEASE}:kms-acme-{program}"
    asked = running.cluster.audit()
    running.command.stop()
    running.start()
    users = {each.user for each in asked.requests(user_agent="") if each.resource.endswith("pki.kms.hanzo.ai")}
    users = {each for each in users if not each.startswith(CONTROLLERS)}
    assert users == {f"system:serviceaccount:{RELEASE}:kms-acme-{each}" for each in ("operator", "server")}


@pytest.mark.requirement("SEC57")
def test_the_server_cannot_read_a_secret_outside_the_release_namespace(running: Development) -> None:
    kubectl = running.cluster.kubectl
    kubectl("create", "secret", "generic", "private", "--from-literal=key=value", "--namespace=default")
    server = ("--kubeconfig", running.kubeconfig("server"))
    for asked in (("secret", "private"), ("secrets",)):
        with pytest.raises(CommandFailed, match="Forbidden"):
            kubectl(*server, "get", *asked, "--namespace=default")
    with pytest.raises(CommandFailed, match="Forbidden"):
        kubectl(*server, "get", "secrets", "--all-namespaces")
    for namespace, answer in (("default", "no"), ("kube-system", "no"), (RELEASE, "yes")):
        can = kubectl(*server, "auth", "can-i", "get", "secrets", f"--namespace={namespace}", check=False)
        assert can.split()[0] == answer
    assert kubectl(*server, "get", "secrets", f"--namespace={RELEASE}", "--output=name")


def test_sigterm_ends_both_programs_in_time_with_exit_code_0(running: Development) -> None:
    processes = running.processes()
    assert len(processes) == 3
    asked_at = time.monotonic()
    assert running.command.stop() == 0
    assert time.monotonic() - asked_at < GRACE
    assert not processes & read_stats().keys()
    assert not list(running.folder.glob("kms-acme-dev-*")), "tokens are left behind"


def test_a_program_that_dies_ends_the_command_with_exit_code_1(running: Development) -> None:
    processes = running.processes()
    os.kill(max(processes), signal.SIGKILL)
    assert running.command.wait(GRACE) == 1
    assert not processes & read_stats().keys()
    assert "ended with exit code -9" in running.command.end_of_log()
