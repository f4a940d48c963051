"""Failures on a node: killed programs and an overloaded API server."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from e2e.chart.helm import NAMESPACE
from e2e.cluster.credentials import Credentials
from e2e.cluster.node import CertManager, NodeCluster
from e2e.support.apiproxy import Proxy, serving
from tests.support.certmanager import Team
from tests.support.release import Release

LEASE = "kms-acme-operator"
REPLICAS = 3
AT_ONCE = {"type": "Recreate", "rollingUpdate": None}
"""A strategy that starts all replicas at once."""


def leader(release: Release) -> str:
    """The pod of the leading operator."""
    identity: str = release.get("lease", LEASE)["spec"]["holderIdentity"]
    return identity.partition(":")[0]


def kill(release: Release, pod: str, *, programs: int = 2) -> None:
    """Kill all programs of a pod, by default a server and an operator; the kubelet restarts them."""
    ctr = ("ctr", "--namespace=k8s.io")
    of_pod = f'labels."io.kubernetes.pod.name"=={pod},labels."io.cri-containerd.kind"==container'
    node = release.cluster.node
    running = node.run(*ctr, "tasks", "list", "--quiet").split()
    victims = set(node.run(*ctr, "containers", "list", "--quiet", of_pod).split()) & set(running)
    assert len(victims) == programs, victims
    for each in victims:
        node.run(*ctr, "tasks", "kill", "--signal=SIGKILL", each)


def delete(release: Release, pod: str) -> None:
    """Delete a pod, which shuts down gracefully and is replaced."""
    release.cluster.kubectl("delete", "pod", pod, f"--namespace={NAMESPACE}", "--wait=false")


def kill_cert_manager(release: Release, cert_manager: CertManager) -> None:
    """Kill the controllers of cert-manager."""
    pods = release.objects("pods", cert_manager.namespace)
    (pod,) = (each["metadata"]["name"] for each in pods if "deletionTimestamp" not in each["metadata"])
    kill(release, pod, programs=1)


def is_presented(team: Team) -> bool:
    """Whether cert-manager has presented a challenge and waits until its self check succeeds."""
    return any(each.get("status", {}).get("presented") for each in team.objects("challenges"))


def never_failed(team: Team, certificates: int) -> None:
    """Assert that this number of Certificates exist, and each became Ready at its first attempt."""
    wanted, requests = team.objects("certificates"), team.objects("certificaterequests")
    attempts = [each["status"].get("failedIssuanceAttempts", 0) for each in wanted]
    assert attempts == [0] * certificates, team.story()
    failed = [each for each in requests if each["status"].get("failureTime")]
    assert (len(requests), failed) == (certificates, []), team.story()


@contextmanager
def behind_a_proxy(release: Release) -> Iterator[Proxy]:
    """Run three replicas whose programs reach the API server through a proxy."""
    with _proxy(release.cluster) as (proxy, port):
        where = [
            {"name": "KUBERNETES_SERVICE_HOST", "value": release.cluster.machine_address},
            {"name": "KUBERNETES_SERVICE_PORT", "value": str(port)},
        ]
        programs = {each: {"extraEnv": where} for each in ("server", "operator")}
        with release.changed({"replicaCount": REPLICAS, "strategy": AT_ONCE, **programs}):
            yield proxy
            proxy.refuse()


@contextmanager
def _proxy(cluster: NodeCluster) -> Iterator[tuple[Proxy, int]]:
    """Run a proxy on an address of the API server, with its certificate; yields it and its port."""
    own = Credentials(cluster.plane.folder / "pki")
    chance = random.Random(1).random  # noqa: S311 - it chooses requests
    proxy = Proxy(cluster.plane.endpoint.server, trust=own.ca_certificate, chance=chance)
    certificate, key = own.certificate("server"), own.key("server")
    with serving(proxy, certificate=certificate, key=key, host=cluster.machine_address) as port:
        yield proxy, port
