"""External CAs on a real API server, with the operator's own rights: what it sees of their issuers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.cluster import Cluster
from kms.pki.certificate import certificate_pem
from kms.resources.certmanager import ObservedIssuer
from kms.resources.kinds import AUTHORITIES, CLUSTER_ISSUERS, ISSUERS, POLICIES, PROFILES, Kind
from tests.support import pki
from tests.support.definitions import definition
from tests.support.manifests import Manifest, manifest, text
from tests.support.operating import Kubectl, OperatorProcess, start_operator

FOREIGN = Kind("awspca.cert-manager.io", "v1beta1", "AWSPCAIssuer", "awspcaissuers", ObservedIssuer)
ANCHOR = certificate_pem(pki.root(not_after=pki.NOW + 3650 * pki.DAY).certificate)
LOOK = 30.0
"""A hurried operator has looked several times by then."""


@pytest.fixture
def operator(installed: Cluster, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator that lets CAs of the namespace be external."""
    running = start_operator(
        installed,
        tmp_path / "operator.log",
        hurried=True,
        lease_name=f"operator-{namespace}",
        external_authorities_from=(namespace,),
    )
    yield running
    running.kill()


@pytest.fixture
def kinds_go(installed: Cluster) -> Iterator[None]:
    """The kinds of issuers are not there before and not after."""
    yield
    for kind in (CLUSTER_ISSUERS, ISSUERS, FOREIGN):
        installed.kubectl("delete", "crd", f"{kind.plural}.{kind.group}", "--ignore-not-found")


def external(name: str, **spec: Any) -> Manifest:
    return manifest(AUTHORITIES, {"internal": None, "external": {**spec, "trustAnchors": [ANCHOR]}}, name=name)


def by_cert_manager(name: str, **ref: str) -> Manifest:
    return external(name, certManager={"issuerRef": {"name": name, **ref}})


def issuer(kind: Kind[Any], name: str, spec: Any) -> Manifest:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}


@pytest.mark.cluster
@pytest.mark.requirement("X2", "X3", "X4", "X49")
@pytest.mark.usefixtures("operator", "kinds_go")
def test_a_ca_follows_its_issuer(installed: Cluster, kubectl: Kubectl) -> None:
    not_allowed = Kubectl(installed, f"{kubectl.namespace}-other")
    installed.kubectl("create", "namespace", not_allowed.namespace)
    not_allowed.apply(by_cert_manager("corporate"))
    kubectl.apply(
        by_cert_manager("corporate"),
        by_cert_manager("loop"),
        by_cert_manager("aws", kind=FOREIGN.kind, group=FOREIGN.group),
        by_cert_manager("odd", kind="NoSuchIssuer", group=FOREIGN.group),
        external("signer", signer={"name": "example.com/web"}),
        manifest(POLICIES, name="web"),
        manifest(PROFILES, {"issuerRef": {"name": "corporate"}}, name="web"),
    )
    kubectl.becomes("kca/corporate", "CertManagerNotInstalled", seconds=LOOK)
    not_allowed.becomes("kca/corporate", "NamespaceNotAllowed", seconds=LOOK)
    kubectl.becomes("kca/signer", "Assumed", seconds=LOOK)
    kubectl.becomes("kca/aws", "IssuerNotFound", seconds=LOOK)
    kubectl.becomes("kprof/web", "IssuerNotReady", seconds=LOOK)

    kinds: tuple[Kind[Any], ...] = (CLUSTER_ISSUERS, ISSUERS, FOREIGN)
    installed.kubectl("apply", "-f", "-", stdin=text(*map(definition, kinds)))
    kubectl.becomes("kca/corporate", "IssuerNotFound", seconds=LOOK)
    for kind in (ISSUERS, FOREIGN):
        installed.kubectl("wait", "crd", f"{kind.plural}.{kind.group}", "--for=condition=Established")
    here = "https://localhost:8443/acme/pki/web/directory"
    kubectl.apply(
        issuer(ISSUERS, "corporate", {"ca": {"secretName": "corporate-ca"}}),
        issuer(ISSUERS, "loop", {"acme": {"server": here}}),
    )
    kubectl.becomes("kca/loop", "IssuerLoops", seconds=LOOK)
    # The operator has no right to read this kind, as long as an administrator grants none.
    kubectl.becomes("kca/aws", "Assumed", seconds=LOOK)
    assert kubectl.reason("kca/aws", "IssuerObserved") == "Forbidden"
    kubectl.becomes("kca/odd", "IssuerNotFound", seconds=LOOK)
    kubectl.becomes("kca/corporate", "IssuerNotReady", seconds=LOOK)

    ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "KeyPairVerified"}]}
    kubectl("patch", "issuers.cert-manager.io/corporate", "--subresource=status", "--type=merge", "-p", status(ready))
    kubectl.becomes("kca/corporate", "Observed", seconds=LOOK)
    kubectl.becomes("kprof/web", "Ready", seconds=LOOK)
    line = kubectl("get", "kca", "corporate", "--no-headers").split()
    assert line[:4] == ["corporate", "True", "Observed", "CertManager"]
    installed.kubectl("delete", "namespace", not_allowed.namespace, "--wait=false")


def status(value: Any) -> str:
    return json.dumps({"status": value})
