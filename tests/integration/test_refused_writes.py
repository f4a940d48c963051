"""What the API server refuses: a quota, an admission policy, RBAC, a namespace that is being deleted.

The operator says who refused what, and does not try again because of its own writes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.cluster import Cluster
from kms.resources.kinds import CREDENTIALS
from tests.support.eventually import eventually
from tests.support.manifests import manifest
from tests.support.operating import RELEASE, Kubectl, examples, start_operator

OBSERVED = 8.0
"""Seconds in which writes are counted; the delay between two attempts has then grown to about four seconds."""
MAXIMUM = 35
"""Writes in that time: Events and statuses of four resources, and about eight attempts for two Secrets."""
WRITES = {"create", "update", "patch", "delete"}
HELD = "example.com/held"


@pytest.fixture
def refusing(installed: Cluster) -> Iterator[dict[str, Kubectl]]:
    """A namespace for each way to refuse Secrets, and one that is about to be deleted."""
    run = secrets.token_hex(4)
    teams = {each: Kubectl(installed, f"{each}-{run}") for each in ("quota", "admission", "rbac", "ending")}
    for team in teams.values():
        installed.kubectl("create", "namespace", team.namespace)
    teams["quota"]("create", "quota", "none", "--hard=count/secrets=0")
    policy = _admission_policy(f"no-secrets-{run}", teams["admission"].namespace)
    teams["admission"].apply(*policy)
    installed.kubectl("-n", RELEASE, "create", "serviceaccount", f"operator-{run}")
    for name in (RELEASE, *(each.namespace for key, each in teams.items() if key != "rbac")):
        _bind(installed, name, "clusterrole/kms-acme-operator", f"operator-{run}")
    _bind(installed, RELEASE, "role/kms-acme-operator", f"operator-{run}")
    teams["rbac"].apply(_role_without_secrets())
    _bind(installed, teams["rbac"].namespace, "role/without-secrets", f"operator-{run}")
    yield {"run": Kubectl(installed, run), **teams}
    for team in teams.values():
        installed.kubectl("delete", "namespace", team.namespace, "--wait=false", "--ignore-not-found")
    for made in policy:
        installed.kubectl("delete", made["kind"], made["metadata"]["name"])
    installed.kubectl("-n", RELEASE, "delete", "rolebinding", "-l", f"run=operator-{run}")


@pytest.mark.requirement("SEC86")
def test_a_refused_write_is_tried_again_ever_more_seldom_and_said_on_the_object(
    installed: Cluster, refusing: dict[str, Kubectl], tmp_path: Path
) -> None:
    run = refusing.pop("run").namespace
    watched = tuple(each.namespace for each in refusing.values())
    account = f"operator-{run}"
    operator = start_operator(
        installed,
        tmp_path / "operator.log",
        kubeconfig=str(installed.kubeconfig_for(account, RELEASE)),
        watch_namespaces=watched,
        lease_name=account,
    )
    try:
        eventually(operator.ready, seconds=15, why=operator.log.read_text)
        _end(refusing["ending"])
        audit = installed.audit()
        for team in ("quota", "admission", "rbac"):
            refusing[team].apply(*examples())
        time.sleep(OBSERVED)
        made = audit.requests(user=f"system:serviceaccount:{RELEASE}:{account}")
        writes = {
            team: sum(each.verb in WRITES for each in made if each.namespace == one.namespace)
            for team, one in refusing.items()
        }
        copies = sum(each.verb in WRITES for each in made if each.namespace == RELEASE and each.resource == "secrets")
        print(writes, copies)
        assert max(writes.values()) <= MAXIMUM
        assert writes["ending"] == 0
        assert copies <= MAXIMUM
        for team, word in (("quota", "exceeded quota"), ("admission", "no Secrets here"), ("rbac", "cannot create")):
            one = refusing[team]
            assert one.reason("eab/web") == "KeyNotDelivered"
            assert one.reason("kprof/web", "Published") == ("Refused" if team == "admission" else "Forbidden")
            assert one.reason("kprof/web") == "Ready"
            for what in ("eab/web", "kprof/web"):
                assert word in one("get", what, "-o", "jsonpath={.status.conditions[?(@.reason!='Ready')].message}")
            assert len(one.internal("eab-")) == 1
        kept = refusing["quota"].internal("eab-")
        refusing["quota"]("delete", "quota", "none")
        refusing["quota"].becomes("eab/web", "Issued", seconds=60)
        assert refusing["quota"].internal("eab-") == kept
    finally:
        operator.kill()
        refusing["ending"]("patch", "eab/web", "--type=merge", "-p", '{"metadata":{"finalizers":null}}', check=False)


def _end(ending: Kubectl) -> None:
    """Delete the namespace while another program holds an EABCredential of it."""
    ending.apply(*examples())
    ending.becomes("eab/web", "Issued", seconds=60)
    ending.becomes("kprof/web", "Ready", seconds=60)
    ending.apply({**manifest(CREDENTIALS, name="web"), "metadata": {"name": "web", "finalizers": [HELD]}})
    ending.cluster.kubectl("delete", "namespace", ending.namespace, "--wait=false")
    eventually(lambda: not ending.exists("secret/web-eab"), seconds=60)
    time.sleep(2)  # events of the last deletions


def _admission_policy(name: str, namespace: str) -> tuple[dict[str, Any], ...]:
    group = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]}
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    constraints = {"resourceRules": [rule], "namespaceSelector": selector}
    validations = [{"expression": "false", "message": "no Secrets here"}]
    spec = {"failurePolicy": "Fail", "matchConstraints": constraints, "validations": validations}
    return (
        {**group, "kind": "ValidatingAdmissionPolicy", "spec": spec},
        {
            **group,
            "kind": "ValidatingAdmissionPolicyBinding",
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    )


def _role_without_secrets() -> dict[str, Any]:
    """What the operator may do in its namespaces, except to write Secrets."""
    reads = ["get", "list", "watch"]
    rules = [
        {"apiGroups": ["pki.kms.hanzo.ai"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["secrets", "namespaces"], "verbs": reads},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    ]
    group = "rbac.authorization.k8s.io/v1"
    return {"apiVersion": group, "kind": "Role", "metadata": {"name": "without-secrets"}, "rules": rules}


def _bind(cluster: Cluster, namespace: str, role: str, account: str) -> None:
    kind, _, name = role.partition("/")
    binding = f"{account}-{kind}"
    subject = f"--serviceaccount={RELEASE}:{account}"
    cluster.kubectl("-n", namespace, "create", "rolebinding", binding, f"--{kind}={name}", subject)
    cluster.kubectl("-n", namespace, "label", "rolebinding", binding, f"run={account}")
