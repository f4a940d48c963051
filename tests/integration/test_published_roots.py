"""Published roots on a real API server, with the operator's own rights and no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.cluster import Cluster
from kms.pki.ca import chain_to_root_pem
from kms.pki.certificate import Signer, certificate_pem
from kms.pki.keys import private_key_pem
from kms.resources.kinds import AUTHORITIES, BUNDLES
from tests.support import pki
from tests.support.eventually import eventually
from tests.support.manifests import text
from tests.support.operating import RELEASE, Kubectl, OperatorProcess, start_operator

OPERATOR = f"{RELEASE}:kms-acme-operator"
ROLE = "kms-acme-trust"
LOOK = 30.0
"""A hurried operator has looked by then at what it cannot watch."""


@pytest.fixture
def bound(installed: Cluster) -> Iterator[Callable[[], None]]:
    """Gives the operator the role; it is taken back afterwards."""

    def bind() -> None:
        installed.kubectl("create", "clusterrolebinding", ROLE, f"--clusterrole={ROLE}", f"--serviceaccount={OPERATOR}")

    yield bind
    installed.kubectl("delete", "clusterrolebinding", ROLE, "--ignore-not-found")


@pytest.fixture
def start(installed: Cluster, namespace: str, tmp_path: Path) -> Iterator[Callable[[], OperatorProcess]]:
    """Starts an operator that lets roots of the namespace go beyond it."""
    running: list[OperatorProcess] = []

    def begin() -> OperatorProcess:
        log, lease = tmp_path / "operator.log", f"operator-{namespace}"
        running.append(start_operator(installed, log, hurried=True, lease_name=lease, trust_from=(namespace,)))
        return running[-1]

    yield begin
    for each in running:
        each.kill()


@pytest.fixture
def team(installed: Cluster, namespace: str) -> Iterator[str]:
    """Another namespace, not labelled yet."""
    name = f"{namespace}-team"
    installed.kubectl("create", "namespace", name)
    yield name
    installed.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def trust_manager(installed: Cluster) -> Iterator[Callable[[], None]]:
    """Its kind, without its schema; not there before and not after."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": anything}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{BUNDLES.plural}.{BUNDLES.group}"},
        "spec": {
            "group": BUNDLES.group,
            "scope": "Cluster",
            "names": {"kind": BUNDLES.kind, "plural": BUNDLES.plural, "singular": "bundle"},
            "versions": [
                {"name": BUNDLES.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }

    def define() -> None:
        installed.kubectl("apply", "-f", "-", stdin=text(definition))

    yield define
    installed.kubectl("delete", "crd", f"{BUNDLES.plural}.{BUNDLES.group}", "--ignore-not-found")


def authority(namespace: str, section: dict[str, Any] | None) -> str:
    """A CA that is imported, so that it can get another root."""
    spec: dict[str, Any] = {"imported": {"secretRef": {"name": "corporate-ca"}}}
    if section is not None:
        spec["trust"] = section
    metadata = {"name": "issuing", "namespace": namespace}
    return text({"apiVersion": AUTHORITIES.api_version, "kind": AUTHORITIES.kind, "metadata": metadata, "spec": spec})


def key_pair(namespace: str, signer: Signer) -> str:
    return text(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": "corporate-ca", "namespace": namespace},
            "stringData": {"tls.crt": chain_to_root_pem(signer), "tls.key": private_key_pem(signer.key).decode()},
        }
    )


def root(name: str) -> Signer:
    return pki.root(common_name=name, with_key=pki.key(which=name), not_after=pki.NOW + 4000 * pki.DAY)


def said(kubectl: Kubectl, field: str = "reason", name: str = "issuing") -> str:
    return kubectl("get", "kca", name, "-o", f'jsonpath={{.status.conditions[?(@.type=="TrustPublished")].{field}}}')


@pytest.mark.cluster
@pytest.mark.requirement("C15")
def test_roots_are_where_the_ca_says_through_a_rotation_until_the_ca_goes(
    *,
    namespace: str,
    team: str,
    kubectl: Kubectl,
    bound: Callable[[], None],
    start: Callable[[], OperatorProcess],
    trust_manager: Callable[[], None],
) -> None:
    old, new = root("Old Root"), root("New Root")
    first, both = certificate_pem(old.certificate), "".join(certificate_pem(each.certificate) for each in (new, old))
    selector = {"matchLabels": {"trust": namespace}}
    section = {
        "configMap": {"name": "example-ca", "namespaces": {"from": "Selector", "selector": selector}},
        "bundle": {"name": namespace},
        "clusterTrustBundle": {"name": namespace},
    }

    def held(where: str = namespace) -> str:
        return kubectl("-n", where, "get", "cm", "example-ca", "-o", r"jsonpath={.data.ca\.crt}", "--ignore-not-found")

    def clusterwide() -> tuple[str, str]:
        kinds = {
            "bundles.trust.cert-manager.io": "{.spec.sources[0].inLine}",
            "clustertrustbundles": "{.spec.trustBundle}",
        }
        found = (
            kubectl("get", kind, namespace, "-o", f"jsonpath={at}", "--ignore-not-found") for kind, at in kinds.items()
        )
        bundle, cluster_trust_bundle = found
        return bundle, cluster_trust_bundle

    def why() -> str:
        return said(kubectl, "message")

    bound()
    kubectl("label", "namespace", namespace, f"trust={namespace}")
    kubectl("apply", "-f", "-", stdin=key_pair(namespace, old))
    kubectl("apply", "-f", "-", stdin=authority(namespace, section))
    operator = start()
    # Without trust-manager: it says that it waits, and the other places have the root.
    eventually(lambda: said(kubectl) == "WaitingForTrustManager", seconds=30, why=why)
    assert held() == first
    trust_manager()
    eventually(lambda: said(kubectl) == "Published", seconds=LOOK, why=why)
    assert clusterwide() == (first, first)

    # A namespace that gets the label.
    assert held(team) == ""
    kubectl("label", "namespace", team, f"trust={namespace}")
    eventually(lambda: held(team) == first, seconds=15, why=why)
    eventually(lambda: "in 2 namespaces" in why(), seconds=15, why=why)

    # Another root, an edit by hand, and an operator that was away meanwhile.
    assert operator.stop() == 0
    kubectl("apply", "-f", "-", stdin=key_pair(namespace, new))
    kubectl("-n", team, "patch", "cm", "example-ca", "--type=merge", "-p", json.dumps({"data": {"ca.crt": "mine"}}))
    operator = start()
    eventually(lambda: (held(), held(team), clusterwide()) == (both, both, (both, both)), seconds=30, why=why)
    operator.stop()
    start()
    kubectl("-n", team, "delete", "cm", "example-ca")
    eventually(lambda: held(team) == both, seconds=LOOK, why=why)

    # No namespace, no CA.
    kubectl("label", "namespace", team, "trust-")
    eventually(lambda: held(team) == "", seconds=15, why=why)
    kubectl("delete", "kca", "issuing")
    eventually(lambda: held() == "", seconds=30)
    eventually(lambda: clusterwide() == ("", ""), seconds=30, why=clusterwide)


@pytest.mark.cluster
@pytest.mark.requirement("SEC56", "SEC57")
def test_without_the_role_nothing_is_published_and_the_ca_signs_all_the_same(
    namespace: str, kubectl: Kubectl, start: Callable[[], OperatorProcess], bound: Callable[[], None]
) -> None:
    kubectl("create", "configmap", "taken", "--from-literal=ca.crt=theirs")
    kubectl("apply", "-f", "-", stdin=key_pair(namespace, root("Old Root")))
    kubectl("apply", "-f", "-", stdin=authority(namespace, {"configMap": {"name": "example-ca"}}))
    start()
    eventually(lambda: said(kubectl) == "Forbidden", seconds=30, why=lambda: said(kubectl, "message"))
    assert "ClusterRole kms-acme-trust" in said(kubectl, "message")
    assert "True" in kubectl("get", "kca", "issuing", "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')

    # Once it may, it still takes nothing over that was there before.
    bound()
    kubectl("apply", "-f", "-", stdin=authority(namespace, {"configMap": {"name": "taken"}}))
    eventually(lambda: said(kubectl) == "NotOurs", seconds=LOOK, why=lambda: said(kubectl, "message"))
    assert kubectl("get", "cm", "taken", "-o", r"jsonpath={.data.ca\.crt}") == "theirs"
    kubectl("delete", "cm", "taken")
    eventually(lambda: said(kubectl) == "Published", seconds=LOOK, why=lambda: said(kubectl, "message"))

    # Without the section nothing is left of it.
    kubectl("apply", "-f", "-", stdin=authority(namespace, None))
    eventually(lambda: said(kubectl) == "", seconds=15, why=lambda: said(kubectl, "message"))
    assert kubectl("get", "cm", "taken", "-o", "name", "--ignore-not-found") == ""


@pytest.mark.cluster
@pytest.mark.requirement("SEC57")
def test_what_admission_refuses_in_one_namespace_keeps_no_other_from_the_root(
    namespace: str, team: str, kubectl: Kubectl, bound: Callable[[], None], start: Callable[[], OperatorProcess]
) -> None:
    """A quota stands for whatever says no."""
    selector = {
        "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": [namespace, team]}]
    }
    section = {"configMap": {"name": "example-ca", "namespaces": {"from": "Selector", "selector": selector}}}
    kubectl("-n", team, "create", "quota", "none", "--hard=count/configmaps=0")
    bound()
    kubectl("apply", "-f", "-", stdin=key_pair(namespace, root("Old Root")))
    kubectl("apply", "-f", "-", stdin=authority(namespace, section))
    start()
    eventually(lambda: said(kubectl) == "Forbidden", seconds=30, why=lambda: said(kubectl, "message"))
    message = said(kubectl, "message")
    assert f"ConfigMap {team}/example-ca" in message
    assert "quota" in message
    assert message.endswith("published in 1 of 2 places")
    assert kubectl("get", "cm", "example-ca", "-o", r"jsonpath={.data.ca\.crt}")
