"""Ready-made issuers on a real API server, with the operator's own rights; cert-manager's kinds come while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.cluster import Cluster
from kms.resources.kinds import CLUSTER_ISSUERS, ISSUERS, PROFILES
from tests.support.definitions import definition
from tests.support.eventually import eventually
from tests.support.manifests import text
from tests.support.operating import OperatorProcess, start_operator

CONDITION = 'jsonpath={.status.conditions[?(@.type=="CertManagerIssuer")].reason}'
LOOK = 30.0
"""A hurried operator has looked for cert-manager by then."""


@pytest.fixture
def operator(installed: Cluster, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator that lets profiles of the namespace reach beyond it."""
    running = start_operator(
        installed,
        tmp_path / "operator.log",
        hurried=True,
        lease_name=f"operator-{namespace}",
        cert_manager_namespace=namespace,
        cluster_issuers_from=(namespace,),
    )
    yield running
    running.kill()


@pytest.fixture
def without_cert_manager(installed: Cluster) -> Iterator[None]:
    """Its kinds are not there before and not after."""
    yield
    for kind in (CLUSTER_ISSUERS, ISSUERS):
        installed.kubectl("delete", "crd", f"{kind.plural}.{kind.group}", "--ignore-not-found")


def profile(namespace: str, section: dict[str, Any] | None) -> dict[str, Any]:
    acme = {"certManager": section} if section else {}
    spec = {"issuerRef": {"name": "issuing"}, "policyRef": {"name": "web"}, "enrollment": {"acme": acme}}
    return {
        "apiVersion": PROFILES.api_version,
        "kind": PROFILES.kind,
        "metadata": {"name": "web", "namespace": namespace},
        "spec": spec,
    }


@pytest.mark.cluster
@pytest.mark.requirement("C7", "C15")
@pytest.mark.usefixtures("without_cert_manager")
def test_an_issuer_comes_with_cert_manager_follows_its_profile_and_goes_with_it(
    installed: Cluster, namespace: str, operator: OperatorProcess
) -> None:
    def kubectl(*args: str, stdin: str | None = None) -> str:
        return installed.kubectl("-n", namespace, *args, stdin=stdin, check=False)

    def reason() -> str:
        return kubectl("get", "kprof", "web", "-o", CONDITION)

    def why() -> str:
        kinds = kubectl(
            "get", "crd", "-o", "yaml", *(f"{each.plural}.{each.group}" for each in (CLUSTER_ISSUERS, ISSUERS))
        )
        return f"{reason()}\n{operator.explain()}\n{kinds}"

    def issuer() -> dict[str, Any]:
        found = kubectl("get", "clusterissuers.cert-manager.io", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(found) if found.startswith("{") else {}

    solvers = [{"http01": {"ingress": {"ingressClassName": "nginx"}}}]
    section: dict[str, Any] = {"clusterIssuer": {"name": namespace}, "email": "pki@example.com", "solvers": solvers}
    kubectl("apply", "-f", "-", stdin=text(profile(namespace, section)))
    eventually(lambda: reason() == "WaitingForCertManager", seconds=30, why=reason)

    installed.kubectl("apply", "-f", "-", stdin=text(definition(CLUSTER_ISSUERS), definition(ISSUERS)))
    eventually(lambda: reason() == "Issued", seconds=LOOK, why=why)
    acme = issuer()["spec"]["acme"]
    key_id = kubectl("get", "eab", f"web-issuer-{namespace}", "-o", "jsonpath={.status.keyID}")
    assert acme["externalAccountBinding"]["keyID"] == key_id
    assert acme["server"] == f"https://localhost:8443/acme/{namespace}/web/directory"
    assert (acme["solvers"], acme["email"], bool(acme["caBundle"])) == (solvers, "pki@example.com", True)
    reference = acme["externalAccountBinding"]["keySecretRef"]
    assert kubectl("get", "secret", reference["name"], "-o", f"jsonpath={{.data.{reference['key']}}}")

    del section["email"]
    kubectl("apply", "-f", "-", stdin=text(profile(namespace, section)))
    eventually(lambda: "email" not in issuer()["spec"]["acme"], seconds=30, why=issuer)

    kubectl("delete", "kprof", "web")
    eventually(lambda: not issuer(), seconds=30, why=issuer)
    eventually(lambda: not kubectl("get", "secret", reference["name"], "--ignore-not-found"), seconds=30)


@pytest.mark.cluster
@pytest.mark.requirement("SEC78")
@pytest.mark.usefixtures("without_cert_manager")
def test_a_suspension_in_the_profile_outlives_the_credential_of_an_issuer_and_a_restore(
    installed: Cluster, namespace: str, operator: OperatorProcess
) -> None:
    def kubectl(*args: str, stdin: str | None = None) -> str:
        return installed.kubectl("-n", namespace, *args, stdin=stdin, check=False)

    def credential() -> dict[str, Any]:
        found = kubectl("get", "eab", f"web-issuer-{namespace}", "-o", "json", "--ignore-not-found")
        return json.loads(found) if found.startswith("{") else {}

    def ready() -> tuple[str, str]:
        conditions = credential().get("status", {}).get("conditions", [])
        reason = next((each["reason"] for each in conditions if each["type"] == "Ready"), "")
        return credential().get("metadata", {}).get("uid", ""), reason

    installed.kubectl("apply", "-f", "-", stdin=text(definition(CLUSTER_ISSUERS), definition(ISSUERS)))
    asking = profile(namespace, {"issuers": {"name": "web"}})
    names = {"dnsNames": {"allowed": ["*.{namespace}.example.com"]}}
    settings = [{"namespace": namespace, "suspended": True}]
    asking["spec"]["enrollment"]["acme"]["allowedNamespaces"] = {"names": names, "settings": settings}
    kubectl("apply", "-f", "-", stdin=text(asking))
    eventually(lambda: ready()[1] == "NamespaceSuspended", seconds=LOOK, why=credential)
    made = credential()
    assert made["spec"]["clientNamespace"] == namespace
    assert made["status"]["names"]["dnsNames"]["allowed"] == [f"*.{namespace}.example.com"]
    assert kubectl("get", "kprof", "web", "-o", "jsonpath={.status.suspendedNamespaces}") == f'["{namespace}"]'

    # Deleted, and then replaced by a backup whose owner has the UID that it had in a former cluster.
    kubectl("delete", "eab", f"web-issuer-{namespace}")
    eventually(lambda: ready()[0] not in {"", made["metadata"]["uid"]}, seconds=30, why=credential)
    eventually(lambda: ready()[1] == "NamespaceSuspended", seconds=30, why=credential)
    backup = {**made, "metadata": {each: made["metadata"][each] for each in ("name", "namespace", "labels")}}
    former = {**made["metadata"]["ownerReferences"][0], "uid": "00000000-0000-4000-8000-000000000000"}
    backup["metadata"]["ownerReferences"] = [former]
    with operator.held():  # kubectl waits until it finds none, and the operator would make the next one at once
        kubectl("replace", "--force", "-f", "-", stdin=text(backup))
    eventually(lambda: ready()[1] == "NamespaceSuspended", seconds=30, why=credential)

    asking["spec"]["enrollment"]["acme"]["allowedNamespaces"] = {"names": names}
    kubectl("apply", "-f", "-", stdin=text(asking))
    eventually(lambda: ready()[1] == "Issued", seconds=30, why=credential)
