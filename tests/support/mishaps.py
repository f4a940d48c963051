"""What goes wrong on a node: programs are killed, and the API server has too much to do."""

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
"""A strategy that does not start the replicas one after the other."""


def leader(release: Release) -> str:
    """The pod whose operator acts."""
    identity: str = release.get("lease", LEASE)["spec"]["holderIdentity"]
    return identity.partition(":")[0]


def kill(release: Release, pod: str, *, programs: int = 2) -> None:
    """End all programs of a pod with SIGKILL, by default a server and an operator; the kubelet starts them again."""
    ctr = ("ctr", "--namespace=k8s.io")
    of_pod = f'labels."io.kubernetes.pod.name"=={pod},labels."io.cri-containerd.kind"==container'
    node = release.cluster.node
    running = node.run(*ctr, "tasks", "list", "--quiet").split()
    victims = set(node.run(*ctr, "containers", "list", "--quiet", of_pod).split()) & set(running)
    assert len(victims) == programs, victims
    for each in victims:
        node.run(*ctr, "tasks", "kill", "--signal=SIGKILL", each)


def delete(release: Release, pod: str) -> None:
    """Have a pod end as it should, and another one come in its place."""
    release.cluster.kubectl("delete", "pod", pod, f"--namespace={NAMESPACE}", "--wait=false")


def kill_cert_manager(release: Release, cert_manager: CertManager) -> None:
    """The same to the controllers of cert-manager: what they have done and not written down is forgotten."""
    pods = release.objects("pods", cert_manager.namespace)
    (pod,) = (each["metadata"]["name"] for each in pods if "deletionTimestamp" not in each["metadata"])
    kill(release, pod, programs=1)


def is_presented(team: Team) -> bool:
    """Whether the solver of a challenge is there, and cert-manager waits until it can be reached."""
    return any(each.get("status", {}).get("presented") for each in team.objects("challenges"))


def never_failed(team: Team, certificates: int) -> None:
    """Assert that there are so many Certificates, each Ready at its first attempt: none has met a back-off."""
    wanted, requests = team.objects("certificates"), team.objects("certificaterequests")
    attempts = [each["status"].get("failedIssuanceAttempts", 0) for each in wanted]
    assert attempts == [0] * certificates, team.story()
    failed = [each for each in requests if each["status"].get("failureTime")]
    assert (len(requests), failed) == (certificates, []), team.story()


@contextmanager
def behind_a_proxy(release: Release) -> Iterator[Proxy]:
    """Three replicas, whose programs reach the API server through a proxy only."""
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
    """A proxy under an address of the API server's own, so with its certificate; and its port."""
    own = Credentials(cluster.plane.folder / "pki")
    chance = random.Random(1).random  # noqa: S311 - it chooses requests
    proxy = Proxy(cluster.plane.endpoint.server, trust=own.ca_certificate, chance=chance)
    certificate, key = own.certificate("server"), own.key("server")
    with serving(proxy, certificate=certificate, key=key, host=cluster.machine_address) as port:
        yield proxy, port
