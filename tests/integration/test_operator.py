"""The operator, as its own ServiceAccount, on a real API server: everything a person sees and does with kubectl."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterator
from functools import partial

import pytest
from cryptography import x509

from e2e.cluster.cluster import Cluster
from kms.pki.certificate import certifies
from kms.resources.kinds import CREDENTIALS, PROFILES
from tests.support import crds
from tests.support.eventually import eventually
from tests.support.manifests import manifest
from tests.support.operating import RELEASE, Kubectl, OperatorProcess, start_operator

DATE_PATTERN = crds.schema(CREDENTIALS)["properties"]["spec"]["properties"]["expiresAt"]["pattern"]
DEEP = 9_000
"""Levels of a document; an API server takes ten thousand."""
USER = f"system:serviceaccount:{RELEASE}:kms-acme-operator"


@pytest.fixture(scope="module")
def operator(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """One for all tests of this file, each of which has a namespace of its own."""
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    process = start_operator(installed, log, hurried=True, lease_name=f"operator-{secrets.token_hex(4)}")
    yield process
    process.kill()


@pytest.fixture
def settled(installed: Cluster, namespace: str, operator: OperatorProcess) -> Kubectl:
    """An example of each configuration kind, Ready, and an operator that keeps them so."""
    kubectl = Kubectl(installed, namespace)
    kubectl.settle()
    return kubectl


def test_four_manifests_become_ready_and_people_see_why(settled: Kubectl) -> None:
    settled("wait", "--for=condition=Ready", "kca/issuing", "kpol/web", "kprof/web", "eab/web", "--timeout=60s")
    credential = settled.secret("web-eab")
    directory = settled.secret("web-acme")
    assert sorted(credential) == ["ca.crt", "directory-url", "kid", "secret"]
    assert len(base64.urlsafe_b64decode(credential["secret"] + b"=")) == 32
    assert directory["directory-url"] == f"https://localhost:8443/acme/{settled.namespace}/web/directory".encode()
    assert directory["chain.crt"].decode() == settled.get("kca/issuing")["status"]["chain"]
    serving = settled.secret("kms-acme-serving", namespace=RELEASE)
    (ca,) = x509.load_pem_x509_certificates(directory["ca.crt"])
    assert certifies(ca, x509.load_pem_x509_certificates(serving["tls.crt"])[0])
    for each in settled.get("kms")["items"]:
        assert each["status"]["observedGeneration"] == each["metadata"]["generation"]
    eventually(lambda: "Issued" in settled("get", "events"))
    assert "Issued" in settled("describe", "eab/web")


def test_nothing_is_put_on_users_objects(settled: Kubectl) -> None:
    for each in settled.get("kms")["items"]:
        assert "finalizers" not in each["metadata"]
        annotations = set(each["metadata"].get("annotations", {}))
        assert annotations <= {"kubectl.kubernetes.io/last-applied-configuration"}


def test_what_has_settled_costs_no_writes(settled: Kubectl) -> None:
    time.sleep(2)  # events of the last writes
    audit = settled.cluster.audit()
    settled("annotate", "kprof/web", "note=hello")
    settled("annotate", "eab/web", "note=hello")
    time.sleep(2)
    # Namespaces of earlier tests may still be ending, which the operator clears up after: only this one counts.
    ours = [each for each in audit.requests(user=USER) if each.namespace == settled.namespace]
    assert [each for each in ours if each.verb in {"create", "update", "patch", "delete"}] == []


def test_drift_is_repaired_within_seconds(settled: Kubectl) -> None:
    before = settled.secret("web-eab")
    (copy,) = settled.internal("eab-")
    settled("patch", "secret", "web-eab", "-p", json.dumps({"stringData": {"secret": "changed", "directory-url": "x"}}))
    settled("delete", "secret", "web-acme")
    settled.cluster.kubectl("-n", RELEASE, "label", "secret", copy, "app.kubernetes.io/managed-by-")
    eventually(lambda: settled.secret("web-eab") == before, seconds=5)
    eventually(lambda: settled.exists("secret/web-acme"), seconds=5)
    managed = "app.kubernetes.io/managed-by"
    eventually(lambda: managed in settled.get(f"secret/{copy}", namespace=RELEASE)["metadata"].get("labels", {}))
    settled("label", "secret", "web-eab", f"{managed}-")
    eventually(lambda: managed in settled.get("secret/web-eab")["metadata"].get("labels", {}))
    assert settled.secret("web-eab") == before


def test_a_status_that_another_program_has_changed_is_put_right(settled: Kubectl) -> None:
    """Another manager owns the changed fields, and some that the operator does not write."""
    before = {each: settled.get(each)["status"] for each in ("kca/issuing", "kpol/web", "kprof/web", "eab/web")}
    fake = {
        "type": "Fake",
        "status": "True",
        "reason": "Fake",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }

    def is_restored(what: str, status: dict[str, object]) -> bool:
        return bool(settled.get(what)["status"] == status)

    for each, status in before.items():
        changed: dict[str, object] = {"conditions": [*status["conditions"], fake], "observedGeneration": 7}
        if each == "kca/issuing":
            changed |= {"chain": "garbage", "certificate": None, "subjectKeyID": "00", "alternateChains": ["garbage"]}
        settled("patch", each, "--subresource=status", "--type=merge", "-p", json.dumps({"status": changed}))
    for each, status in before.items():
        eventually(partial(is_restored, each, status), seconds=10)


@pytest.mark.requirement("SEC59")
def test_a_lost_signing_key_is_never_replaced_and_comes_back_from_a_backup(settled: Kubectl) -> None:
    (name,) = settled.internal("ca-")
    backup = settled.get(f"secret/{name}", namespace=RELEASE)
    settled.cluster.kubectl("-n", RELEASE, "delete", "secret", name)
    settled.becomes("kca/issuing", "KeyLost")
    settled.becomes("kprof/web", "IssuerNotReady")
    assert settled.internal("ca-") == []
    del backup["metadata"]["resourceVersion"], backup["metadata"]["uid"]
    settled.cluster.kubectl("-n", RELEASE, "apply", "-f", "-", stdin=json.dumps(backup))
    settled.becomes("kca/issuing", "Issued")
    settled.becomes("kprof/web", "Ready")


def test_deleted_resources_leave_their_keys_for_a_time_and_nothing_else(settled: Kubectl) -> None:
    keys = settled.internal("")
    settled("delete", "eab/web", "kca/issuing")
    settled.becomes("kprof/web", "CertificateAuthorityDeleted")
    eventually(lambda: all(map(settled.is_kept, keys)))
    eventually(lambda: not settled.exists("secret/web-eab"), seconds=30)
    settled.cluster.kubectl("-n", RELEASE, "delete", "secret", *keys)
    settled.becomes("kprof/web", "IssuerNotFound")
    assert settled.internal("") == []


@pytest.mark.requirement("SEC12c")
def test_a_namespace_is_allowed_by_its_labels(settled: Kubectl, installed: Cluster) -> None:
    team = f"{settled.namespace}-team"
    rule = {"from": "Selector", "selector": {"matchLabels": {"may-enroll": "yes"}}}
    settled.apply(manifest(PROFILES, {"enrollment.acme.allowedNamespaces": rule}, name="web"))
    installed.kubectl("create", "namespace", team)
    theirs = Kubectl(installed, team)
    try:
        reference = {"name": "web", "namespace": settled.namespace}
        theirs.apply(manifest(CREDENTIALS, {"profileRef": reference}, name="web"))
        theirs.becomes("eab/web", "NamespaceNotAllowed")
        assert not theirs.exists("secret/web-eab")
        installed.kubectl("label", "namespace", team, "may-enroll=yes")
        theirs.becomes("eab/web", "Issued")
        installed.kubectl("label", "namespace", team, "may-enroll-")
        theirs.becomes("eab/web", "NamespaceNotAllowed")
        assert theirs.internal("eab-") == []
    finally:
        installed.kubectl("delete", "namespace", team, "--wait=false")


def test_a_key_that_a_user_brings_is_used_and_its_secret_not_touched(settled: Kubectl) -> None:
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    settled("create", "secret", "generic", "own", "--from-literal=kid=team-a", f"--from-literal=secret={key}")
    before = settled.get("secret/own")
    for name in ("first", "second"):
        settled.apply(manifest(CREDENTIALS, {"secretName": "own"}, name=name))
        settled.becomes(f"eab/{name}", "Issued" if name == "first" else "KeyIDInUse")
    assert settled.get("secret/own") == before
    assert settled.get("eab/first")["status"]["keyID"] == "team-a"
    settled("delete", "eab/first")

    def kept() -> list[str]:
        return [each for each in settled.internal("eab-") if settled.is_kept(each)]

    eventually(kept)
    assert settled.reason("eab/second") == "KeyIDInUse"
    settled.cluster.kubectl("-n", RELEASE, "delete", "secret", *kept())
    settled.becomes("eab/second", "Issued")


def test_accounts_are_counted(settled: Kubectl) -> None:
    found = settled.get("eab/web")
    uid, key_id = found["metadata"]["uid"], found["status"]["keyID"]
    account = {
        "apiVersion": "pki.kms.hanzo.ai/v1alpha1",
        "kind": "ACMEAccount",
        "metadata": {"name": "one", "labels": {"pki.kms.hanzo.ai/credential-uid": uid}},
        "spec": {
            "externalAccount": {"name": "web", "namespace": settled.namespace, "uid": uid, "keyID": key_id},
            "profileRef": {"name": "web"},
            "key": '{"crv":"P-256","kty":"EC","x":"AA","y":"AA"}',
            "thumbprint": "x" * 43,
        },
    }
    settled.apply(account)
    settled("patch", "acmeacct/one", "--subresource=status", "--type=merge", "-p", '{"status": {"state": "valid"}}')
    eventually(lambda: settled.get("eab/web")["status"]["accounts"] == 1)
    settled("delete", "acmeacct/one")
    eventually(lambda: settled.get("eab/web")["status"]["accounts"] == 0)


def test_changes_made_while_the_api_server_restarts_are_not_missed(settled: Kubectl, installed: Cluster) -> None:
    for _ in range(2):
        installed.stop_apiserver()
        time.sleep(1)
        installed.start_apiserver()
    settled.apply(manifest(CREDENTIALS, name="later"))
    settled.becomes("eab/later", "Issued", seconds=60)


@pytest.mark.requirement("SEC82")
def test_a_profile_that_is_nested_deeply_says_so_and_stops_nothing(settled: Kubectl) -> None:
    body = manifest(PROFILES, {"enrollment.acme.certManager": {"issuers": {"name": "x"}, "solvers": [{"a": "DEEP"}]}})
    body["metadata"]["name"] = "deep"
    deep = json.dumps(body).replace('"DEEP"', '{"a":' * DEEP + "1" + "}" * DEEP)
    path = f"/apis/{PROFILES.group}/{PROFILES.version}/namespaces/{settled.namespace}/{PROFILES.plural}"
    settled("create", "--raw", path, "-f", "-", stdin=deep)
    ready = ("get", "kprof/deep", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].message}")
    eventually(lambda: "nested" in settled(*ready), why=lambda: settled(*ready))
    eventually(lambda: "Unreadable" in settled("get", "events"))
    for _ in range(2):
        settled("delete", "secret", "web-acme")
        eventually(lambda: settled.exists("secret/web-acme"), seconds=5)
    settled("delete", "kprof/deep")


@pytest.mark.requirement("SEC77", "SEC82")
def test_a_credential_from_before_the_schema_was_tightened_keeps_its_key_and_its_deletion_is_seen(
    settled: Kubectl, installed: Cluster
) -> None:
    loose = json.dumps(crds.definition(CREDENTIALS)).replace(json.dumps(DATE_PATTERN), '"^.*$"')
    install = ("apply", "--server-side", "--force-conflicts", "-f", "-")
    bad = json.dumps({"spec": {"expiresAt": "2027-01-01T00:00:00+99:99"}})
    copies = settled.internal("eab-")
    try:
        installed.kubectl(*install, stdin=loose)
        eventually(lambda: "patched" in settled("patch", "eab/web", "--type=merge", "-p", bad, check=False), seconds=30)
    finally:
        installed.kubectl(*install, stdin=json.dumps(crds.definition(CREDENTIALS)))
    settled.becomes("eab/web", "Unreadable", seconds=30)
    found = settled.get("eab/web")["status"]
    assert "spec.expiresAt" in found["conditions"][0]["message"]
    assert (bool(found["keyID"]), settled.internal("eab-")) == (True, copies)
    settled("annotate", "eab/web", "note=hello")
    settled("delete", "eab/web")
    eventually(lambda: all(map(settled.is_kept, copies)), seconds=30)
