"""cert-manager's own controllers on a node: they come up with options, and issue."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import yaml

from e2e.cluster.node import CertManager, NodeCluster


@pytest.fixture(scope="module")
def cert_manager(node_cluster: NodeCluster) -> CertManager:
    wanted = CertManager(
        feature_gates={"ACMEUseARI": True},
        http01_nameservers=(f"{node_cluster.dns_address}:53",),
        dns01_nameservers=(f"{node_cluster.machine_address}:53",),
        minimum_backoff="5s",
        maximum_backoff="30s",
    )
    wanted.install(node_cluster)
    return wanted


@pytest.fixture
def place(node_cluster: NodeCluster) -> Iterator[str]:
    name = f"test-{secrets.token_hex(5)}"
    node_cluster.kubectl("create", "namespace", name)
    yield name
    node_cluster.kubectl("delete", "namespace", name, "--wait=false")


def test_a_certificate_of_a_self_signed_issuer_becomes_ready(
    node_cluster: NodeCluster, cert_manager: CertManager, place: str
) -> None:
    issuer = {"kind": "Issuer", "metadata": {"name": "own"}, "spec": {"selfSigned": {}}}
    certificate = {
        "kind": "Certificate",
        "metadata": {"name": "web"},
        "spec": {"dnsNames": ["web.test"], "secretName": "web-tls", "issuerRef": {"name": "own"}},
    }
    objects = [{"apiVersion": "cert-manager.io/v1", **each} for each in (issuer, certificate)]
    node_cluster.kubectl("apply", "--filename=-", f"--namespace={place}", stdin=yaml.safe_dump_all(objects))
    node_cluster.kubectl("wait", "--for=condition=Ready", "certificate/web", f"--namespace={place}", "--timeout=60s")
    types = "jsonpath={.type}"
    assert node_cluster.kubectl("get", "secret", "web-tls", f"--namespace={place}", "-o", types) == "kubernetes.io/tls"


def test_its_options_are_those_that_were_given(node_cluster: NodeCluster, cert_manager: CertManager) -> None:
    arguments = node_cluster.kubectl(
        "get", "deployment/cert-manager", "--namespace=cert-manager", "--output=jsonpath={..args}"
    )
    assert "--feature-gates=ACMEUseARI=true" in arguments
    assert "--certificate-request-minimum-backoff-duration=5s" in arguments
    assert f"--dns01-recursive-nameservers={node_cluster.machine_address}:53" in arguments


def test_it_may_do_all_that_it_tries(node_cluster: NodeCluster, cert_manager: CertManager) -> None:
    cert_manager.restart(node_cluster)
    assert "forbidden" not in cert_manager.logs(node_cluster)
