"""Pods on a real node: they run restricted, reach each other by name, and what tests may do with them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from e2e.cluster.node import ZONE, NodeCluster
from e2e.support import dns

PORT = 8089
PATH = "/.well-known/acme-challenge/token"


@pytest.fixture
def place(node_cluster: NodeCluster) -> Iterator[str]:
    """A namespace in which the Pod Security standard `restricted` is enforced."""
    name = f"test-{secrets.token_hex(5)}"
    node_cluster.kubectl("create", "namespace", name)
    node_cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    node_cluster.kubectl("delete", "namespace", name, "--wait=false")


def run(cluster: NodeCluster, namespace: str, pod: dict[str, Any]) -> None:
    cluster.kubectl("apply", "--filename=-", f"--namespace={namespace}", stdin=yaml.safe_dump(pod))


def solver(cluster: NodeCluster, *, name: str, domain: str, key: str) -> dict[str, Any]:
    """A pod that answers an HTTP-01 challenge, in the way in which everything of ours runs."""
    image = cluster.parts.image("images", "solver")
    cluster.load_image(image.archive)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "solver",
                    "image": image.reference,
                    "imagePullPolicy": "Never",
                    "args": [f"--listen-port={PORT}", f"--domain={domain}", "--token=token", f"--key={key}"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def client(cluster: NodeCluster, namespace: str, program: str) -> str:
    """Run a Python program in a restricted pod of our own image, and return what it printed."""
    name = f"client-{secrets.token_hex(3)}"
    pod = solver(cluster, name=name, domain="", key="")
    pod["spec"]["restartPolicy"] = "Never"
    (container,) = pod["spec"]["containers"]
    container |= {
        "image": cluster.image.reference,
        "command": ["/opt/kms-acme/bin/python3", "-c", program],
        "args": [],
    }
    run(cluster, namespace, pod)
    options = (f"--namespace={namespace}", "--timeout=60s", f"pod/{name}")
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", *options)
    return cluster.kubectl("logs", f"--namespace={namespace}", name)


def test_a_restricted_pod_reaches_another_through_its_service_by_name(node_cluster: NodeCluster, place: str) -> None:
    domain = f"web.{place}.svc.cluster.local"
    run(node_cluster, place, solver(node_cluster, name="web", domain=domain, key="the key authorization"))
    node_cluster.kubectl("expose", "pod", "web", f"--namespace={place}", "--port=80", f"--target-port={PORT}")
    node_cluster.kubectl("wait", "--for=condition=Ready", "pod/web", f"--namespace={place}", "--timeout=60s")
    program = (
        f"import urllib.request; print(urllib.request.urlopen('http://{domain}{PATH}', timeout=10).read().decode())"
    )
    assert client(node_cluster, place, program) == "the key authorization\n"


def test_pods_ask_the_dns_server_of_the_test_for_its_zone(node_cluster: NodeCluster, place: str) -> None:
    zone = dns.Zone(ZONE)
    zone.set(f"web.{ZONE}", dns.Addresses("10.1.2.3"))
    with dns.serving(zone, host=node_cluster.machine_address, port=53):
        said = client(node_cluster, place, f"import socket; print(socket.gethostbyname('web.{ZONE}'))")
    assert said == "10.1.2.3\n"


def test_nothing_leaves_the_machine(node_cluster: NodeCluster, place: str) -> None:
    program = """
import socket
for attempt, argument in ((socket.create_connection, ("192.0.2.1", 80)), (socket.gethostbyname, "example.com")):
    try:
        attempt(argument)
    except OSError:
        print("refused")
"""
    assert client(node_cluster, place, program) == "refused\nrefused\n"


def test_a_pod_that_would_run_as_root_is_refused_where_restricted_is_enforced(
    node_cluster: NodeCluster, place: str
) -> None:
    said = node_cluster.kubectl("run", "root", "--image=kms-acme.test/none:1", f"--namespace={place}", check=False)
    assert 'violates PodSecurity "restricted' in said


def test_commands_run_in_a_pod_and_its_log_is_read(node_cluster: NodeCluster, place: str) -> None:
    run(node_cluster, place, solver(node_cluster, name="web", domain="a.test", key="k"))
    node_cluster.kubectl("wait", "--for=condition=Ready", "pod/web", f"--namespace={place}", "--timeout=60s")
    said = node_cluster.kubectl("exec", "web", f"--namespace={place}", "--", "/program", "-help", check=False)
    assert "of the challenge" in said
    assert node_cluster.kubectl("logs", "web", f"--namespace={place}") == ""


def test_the_api_server_goes_on_where_it_was(node_cluster: NodeCluster, place: str) -> None:
    node_cluster.stop_apiserver()
    node_cluster.start_apiserver()
    run(node_cluster, place, solver(node_cluster, name="after", domain="a.test", key="k"))
    node_cluster.kubectl("wait", "--for=condition=Ready", "pod/after", f"--namespace={place}", "--timeout=60s")


def test_the_components_of_the_cluster_can_be_looked_into(node_cluster: NodeCluster) -> None:
    assert all(node_cluster.running().values())
    for component in node_cluster.running():
        assert node_cluster.log(component).exists()
    (node,) = json.loads(node_cluster.kubectl("get", "nodes", "--output=json"))["items"]
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.36.3"
