"""Operator and server as they share a pod: the server lives on what the operator hands it, under the chart's roles."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from e2e.chart.helm import CHART, NAMESPACE, RELEASE, Helm
from e2e.cluster import Cluster, CommandFailed
from e2e.cluster.ports import LOOPBACK, free_port
from e2e.support.enrollment import enrollment_of
from e2e.support.programs import Program
from kms_acme.check import check
from tests.support.eventually import eventually, until

SERVER = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-server"


@dataclass(frozen=True)
class Pod:
    """Two programs on one machine that stand for the two containers, and the folder that stands for their volume."""

    cluster: Cluster
    operator: Program
    server: Program
    url: str
    volume: Path

    @property
    def token(self) -> Path:
        return self.volume / "token"

    def as_the_server(self, *args: str, check: bool = True) -> str:
        """kubectl under the token that the server has."""
        config = yaml.safe_load(self.cluster.kubeconfig.read_text())
        config["users"] = [{"name": each["name"], "user": {"tokenFile": str(self.token)}} for each in config["users"]]
        kubeconfig = self.volume.parent / "server.kubeconfig"
        kubeconfig.write_text(json.dumps(config))
        return self.cluster.kubectl("--kubeconfig", kubeconfig, *args, check=check)


@pytest.fixture(scope="module")
def pod(
    helm: Helm,
    clusters: Callable[..., AbstractContextManager[Cluster]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pod]:
    folder = tmp_path_factory.mktemp("pod")
    volume = folder / "server-identity"
    volume.mkdir()
    with ExitStack() as stack:
        cluster = stack.enter_context(clusters())
        if not cluster.is_ours:
            pytest.skip("the programs run beside the cluster, which they cannot beside one of your own")
        there = Helm(helm.program, helm.home, cluster.env)
        there.with_values({}, "install", RELEASE, CHART, f"--namespace={NAMESPACE}", "--create-namespace")
        api = urlsplit(yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
        listen = f"{LOOPBACK}:{free_port()}"
        url = f"https://{listen}"
        shared = (f"--external-url={url}", f"--namespace={NAMESPACE}")
        outside = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
        operator = Program(
            "operator",
            (
                "operator",
                *shared,
                f"--kubeconfig={cluster.kubeconfig_for(f'{RELEASE}-operator', NAMESPACE)}",
                f"--server-service-account={RELEASE}-server",
                f"--server-token-directory={volume}",
            ),
            metrics_port=free_port(),
            log=folder / "operator.log",
            env=outside,
        )
        server = Program(
            "server",
            ("server", *shared, f"--listen={listen}", f"--token-directory={volume}"),
            metrics_port=free_port(),
            log=folder / "server.log",
            # As in every container, with or without a token.
            env={**outside, "KUBERNETES_SERVICE_HOST": str(api.hostname), "KUBERNETES_SERVICE_PORT": str(api.port)},
        )
        stack.callback(operator.kill)
        stack.callback(server.kill)
        cluster.learn_new_kinds()
        yield Pod(cluster, operator, server, url, volume)


@pytest.fixture
def running(pod: Pod) -> Pod:
    for each in (pod.operator, pod.server):
        each.start()
    for each in (pod.operator, pod.server):
        each.wait_until_ready()
    return pod


async def test_the_server_waits_for_its_first_token_and_begins_with_it(pod: Pod) -> None:
    pod.server.start()
    await until(lambda: "waiting for a token" in pod.server.end_of_log(), seconds=60)
    assert not pod.token.exists()
    assert pod.server.running()
    pod.operator.start()
    pod.server.wait_until_ready()
    assert pod.token.stat().st_mode & 0o077 == 0


@pytest.mark.requirement("SEC57")
def test_all_that_the_server_asks_it_asks_as_itself(running: Pod) -> None:
    audit = running.cluster.audit()
    running.server.restart()
    asked = [each for each in audit.requests(user_agent="") if each.resource.startswith("acmeorders")]
    assert asked
    assert {each.user.removeprefix("system:") for each in asked} == {SERVER.removeprefix("system:")}


@pytest.mark.requirement("SEC57")
@pytest.mark.parametrize("elsewhere", ["default", "kube-system"])
def test_the_servers_token_opens_no_secret_outside_of_the_release_namespace(running: Pod, elsewhere: str) -> None:
    running.cluster.kubectl("create", "secret", "generic", "private", "--from-literal=a=b", f"--namespace={elsewhere}")
    try:
        for asked in (["secret", "private"], ["secrets"]):
            with pytest.raises(CommandFailed, match="orbidden"):
                running.as_the_server("get", *asked, f"--namespace={elsewhere}")
        with pytest.raises(CommandFailed, match="orbidden"):
            running.as_the_server("get", "secrets", "--all-namespaces")
    finally:
        running.cluster.kubectl("delete", "secret", "private", f"--namespace={elsewhere}")
    assert running.as_the_server("get", "secrets", f"--namespace={NAMESPACE}", "--output=name")


@pytest.mark.requirement("SEC57")
def test_the_servers_token_makes_no_other_tokens(running: Pod) -> None:
    for account in (f"{RELEASE}-operator", f"{RELEASE}-server", "default"):
        with pytest.raises(CommandFailed, match="orbidden"):
            running.as_the_server("create", "token", account, f"--namespace={NAMESPACE}")


@pytest.mark.requirement("SEC57")
def test_the_operator_makes_tokens_of_the_server_alone(running: Pod) -> None:
    operator = ("--kubeconfig", running.cluster.kubeconfig_for(f"{RELEASE}-operator", NAMESPACE))
    assert running.cluster.kubectl(*operator, "create", "token", f"{RELEASE}-server", f"--namespace={NAMESPACE}")
    for account, namespace in ((f"{RELEASE}-operator", NAMESPACE), ("default", NAMESPACE), ("default", "kube-system")):
        with pytest.raises(CommandFailed, match="orbidden"):
            running.cluster.kubectl(*operator, "create", "token", account, f"--namespace={namespace}")


def test_the_server_outlives_the_operator_beside_it_and_gets_a_new_token_with_the_next(running: Pod) -> None:
    before = running.token.read_text()
    running.operator.kill()
    assert running.server.ready()
    running.operator.restart()
    eventually(lambda: running.token.read_text() != before, seconds=30)
    assert running.server.ready()
    assert running.as_the_server("auth", "whoami", "--output=jsonpath={.status.userInfo.username}") == SERVER


async def test_a_directory_is_served_and_the_test_of_the_chart_passes(running: Pod, helm: Helm, tmp_path: Path) -> None:
    hooks = [each for each in helm.render() if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    ours = [each for each in hooks if each["apiVersion"].startswith("pki.kms.hanzo.ai/")]
    for each in ours:
        running.cluster.kubectl("create", "--filename=-", stdin=json.dumps(each))
    name = f"{RELEASE}-test"
    wait = ("wait", "--for=condition=Ready", f"--namespace={NAMESPACE}", "--timeout=60s")
    running.cluster.kubectl(*wait, f"certificateprofile/{name}")
    enrollment = enrollment_of(running.cluster, NAMESPACE, name)
    (tmp_path / "ca.crt").write_text(enrollment.authority)
    check(enrollment.directory_url, authority=tmp_path / "ca.crt")
    for each in ours:
        running.cluster.kubectl("delete", each["kind"], each["metadata"]["name"], f"--namespace={NAMESPACE}")
