"""What deploy/rbac.yaml lets whom do, asked from a real API server (SEC57, SEC58)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import CommandFailed
from e2e.cluster.install import documents
from kms.cluster.client import Cluster as KubernetesCluster
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, ORDERS, PROFILES
from kms_acme.doctor.examination import needed_rights, refused_rights
from kms_acme.install import manifests
from tests.support.crds import CONFIGURATION, KINDS
from tests.support.eventually import eventually
from tests.support.manifests import manifest

RELEASE = "kms-acme"
SERVER = f"system:serviceaccount:{RELEASE}:kms-acme-server"
OPERATOR = f"system:serviceaccount:{RELEASE}:kms-acme-operator"
READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete", "deletecollection")
ALL = (*READ, *WRITE)
GROUP = "pki.kms.hanzo.ai"

CONFIGURATION_KINDS = tuple(f"{kind.plural}.{GROUP}" for kind in CONFIGURATION)
PROTOCOL_KINDS = (f"acmeaccounts.{GROUP}", f"acmeorders.{GROUP}")


def permitted(cluster: Cluster, who: str, asked: Sequence[tuple[str, str]], namespace: str) -> list[bool]:
    """Whether somebody has each verb on each resource (`plural.group/subresource`), by SubjectAccessReviews."""
    reviews = [_review(who, verb, resource, namespace) for verb, resource in asked]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
    answers = documents(cluster.kubectl("create", "--validate=false", "--filename=-", "--output=json", stdin=text))
    assert len(answers) == len(asked)
    return [bool(each["status"]["allowed"]) for each in answers]


def _review(who: str, verb: str, resource: str, namespace: str) -> dict[str, Any]:
    name, _, subresource = resource.partition("/")
    plural, _, group = name.partition(".")
    attributes = {"verb": verb, "group": group, "resource": plural, "subresource": subresource, "namespace": namespace}
    groups = ["system:authenticated"]
    if who.startswith("system:serviceaccount:"):
        groups += ["system:serviceaccounts", f"system:serviceaccounts:{RELEASE}"]
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": who, "groups": groups, "resourceAttributes": attributes},
    }


def may(cluster: Cluster, who: str, verb: str, resource: str, namespace: str) -> bool:
    """Whether somebody has this verb on this resource."""
    return permitted(cluster, who, [(verb, resource)], namespace) == [True]


def allowed(cluster: Cluster, who: str, resource: str, namespace: str) -> set[str]:
    """The verbs that somebody has on a resource."""
    answers = permitted(cluster, who, [(verb, resource) for verb in ALL], namespace)
    return {verb for verb, answer in zip(ALL, answers, strict=True) if answer}


@pytest.fixture
def tenant(installed: Cluster, namespace: str) -> str:
    """Somebody with the role edit in the namespace, once the controller has aggregated our rules into it."""
    return _bound(installed, namespace, "edit")


@pytest.fixture
def reader(installed: Cluster, namespace: str) -> str:
    """Somebody with the role view in the namespace."""
    return _bound(installed, namespace, "view")


def _bound(cluster: Cluster, namespace: str, role: str, *, reads: str = PROTOCOL_KINDS[1]) -> str:
    who = f"{role}-{namespace}"
    cluster.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={who}", f"--namespace={namespace}")
    eventually(
        lambda: may(cluster, who, "get", reads, namespace),
        seconds=30,
        why=lambda: f"our rules are not in the ClusterRole {role}",
    )
    return who


# The server


@pytest.mark.requirement("SEC57")
@pytest.mark.parametrize("elsewhere", ["default", "kube-system"])
def test_the_server_sees_no_secret_outside_the_release_namespace(installed: Cluster, elsewhere: str) -> None:
    assert allowed(installed, SERVER, "secrets", elsewhere) == set()


@pytest.mark.requirement("SEC57")
def test_the_server_reads_secrets_in_the_release_namespace_and_writes_none(installed: Cluster) -> None:
    assert allowed(installed, SERVER, "secrets", RELEASE) == set(READ)


@pytest.mark.requirement("SEC57")
def test_the_server_is_refused_a_secret_that_it_asks_for(installed: Cluster, namespace: str) -> None:
    installed.kubectl("create", "secret", "generic", "private", "--from-literal=a=b", f"--namespace={namespace}")
    for asked in (("get", "secret", "private"), ("get", "secrets")):
        with pytest.raises(CommandFailed, match="Forbidden"):
            installed.kubectl(*asked, f"--namespace={namespace}", f"--as={SERVER}")


def test_the_server_reads_the_configuration_and_cannot_change_it(installed: Cluster) -> None:
    for resource in CONFIGURATION_KINDS:
        assert allowed(installed, SERVER, resource, "default") == set(READ)
        assert allowed(installed, SERVER, f"{resource}/status", "default") == set()
    assert allowed(installed, SERVER, "namespaces", "default") == set(READ)


def test_the_server_keeps_accounts_and_orders(installed: Cluster) -> None:
    for resource in PROTOCOL_KINDS:
        assert allowed(installed, SERVER, resource, "default") == {*READ, "create", "patch", "delete"}
        assert allowed(installed, SERVER, f"{resource}/status", "default") == {"get", "update", "patch"}
    assert allowed(installed, SERVER, "events.events.k8s.io", "default") == {"create", "patch"}


def test_the_server_alone_writes_chains_and_changes_none(installed: Cluster) -> None:
    chains = f"certificatechains.{GROUP}"
    assert allowed(installed, SERVER, chains, "default") == {*READ, "create", "delete"}
    assert allowed(installed, OPERATOR, chains, "default") == set()


@pytest.mark.requirement("SEC79")
def test_the_server_records_revocations_in_the_release_namespace_only_and_changes_no_record(installed: Cluster) -> None:
    records = f"revocationrecords.{GROUP}"
    assert allowed(installed, SERVER, records, RELEASE) == {*READ, "create", "delete"}
    assert allowed(installed, SERVER, records, "default") == set()
    assert allowed(installed, OPERATOR, records, RELEASE) == set()


def test_the_server_finds_the_other_replicas_in_the_release_namespace_only(installed: Cluster) -> None:
    slices = "endpointslices.discovery.k8s.io"
    assert allowed(installed, SERVER, slices, RELEASE) == set(READ)
    assert allowed(installed, SERVER, slices, "default") == set()


def test_a_server_of_one_namespace_reads_the_labels_of_that_one_alone(installed: Cluster, namespace: str) -> None:
    server = f"server-of-{namespace}"
    binding = ("create", "rolebinding", "server", "--clusterrole=kms-acme-server", f"--user={server}")
    installed.kubectl(*binding, f"--namespace={namespace}")
    read = ("get", "namespace", "--output=name", f"--as={server}")
    eventually(lambda: namespace in installed.kubectl(*read, namespace, check=False), seconds=30)
    for other in ("default", f"--selector=kubernetes.io/metadata.name={namespace}"):
        with pytest.raises(CommandFailed, match="Forbidden"):
            installed.kubectl(*read, other)


# The operator


def test_the_operator_writes_the_status_of_the_configuration_and_not_its_spec(installed: Cluster) -> None:
    for resource in CONFIGURATION_KINDS:
        # Of what people write, it makes the credentials of ready-made issuers.
        made = {"create", "patch", "delete"} if resource.startswith(f"{CREDENTIALS.plural}.") else set()
        assert allowed(installed, OPERATOR, resource, "default") == {*READ, *made}
        assert allowed(installed, OPERATOR, f"{resource}/status", "default") == {"get", "update", "patch"}


@pytest.mark.requirement("SEC57")
def test_the_operator_writes_no_account_and_sees_no_order(installed: Cluster) -> None:
    accounts, orders = PROTOCOL_KINDS
    assert allowed(installed, OPERATOR, accounts, "default") == set(READ)
    assert allowed(installed, OPERATOR, f"{accounts}/status", "default") == set()
    assert allowed(installed, OPERATOR, orders, "default") == set()
    assert allowed(installed, OPERATOR, f"{orders}/status", "default") == set()


def test_the_operator_keeps_secrets_everywhere(installed: Cluster) -> None:
    for namespace in ("default", RELEASE):
        assert allowed(installed, OPERATOR, "secrets", namespace) == {*READ, "create", "update", "patch", "delete"}


def test_the_operator_reads_namespaces_tells_events_and_holds_its_lease(installed: Cluster) -> None:
    leases = "leases.coordination.k8s.io"
    assert allowed(installed, OPERATOR, "namespaces", "default") == set(READ)
    assert allowed(installed, OPERATOR, "events", "default") == {"create", "patch"}
    assert allowed(installed, OPERATOR, "events.events.k8s.io", "default") == {"create", "patch"}
    for who in (OPERATOR, SERVER):
        assert allowed(installed, who, leases, RELEASE) == {"get", "create", "update"}
        assert allowed(installed, who, leases, "default") == set()


@pytest.mark.requirement("SEC57")
def test_the_operator_publishes_roots_only_where_somebody_lets_it(installed: Cluster, namespace: str) -> None:
    for resource in ("configmaps", "bundles.trust.cert-manager.io"):
        assert allowed(installed, OPERATOR, resource, namespace) == set()
    # Kubernetes itself lets every ServiceAccount read what everybody is to trust.
    assert allowed(installed, OPERATOR, "clustertrustbundles.certificates.k8s.io", namespace) <= set(READ)
    account = OPERATOR.removeprefix("system:serviceaccount:")
    bind = ("create", "rolebinding", "trust", "--clusterrole=kms-acme-trust", f"--serviceaccount={account}")
    installed.kubectl(*bind, f"--namespace={namespace}")
    eventually(
        lambda: may(installed, OPERATOR, "create", "configmaps", namespace),
        seconds=30,
        why=lambda: "the binding does not act",
    )
    assert allowed(installed, OPERATOR, "configmaps", namespace) == {"get", "list", "create", "patch", "delete"}
    assert allowed(installed, OPERATOR, "configmaps", "default") == set()


@pytest.mark.requirement("SEC57")
def test_the_operator_makes_tokens_of_the_servers_account_alone(installed: Cluster) -> None:
    operator = ("--kubeconfig", installed.kubeconfig_for("kms-acme-operator", RELEASE))
    assert installed.kubectl(*operator, "create", "token", "kms-acme-server", f"--namespace={RELEASE}")
    for account, namespace in (("kms-acme-operator", RELEASE), ("default", RELEASE), ("default", "default")):
        with pytest.raises(CommandFailed, match="forbidden"):
            installed.kubectl(*operator, "create", "token", account, f"--namespace={namespace}")


@pytest.mark.parametrize("who", [SERVER, OPERATOR], ids=["server", "operator"])
def test_neither_program_can_grant_rights_or_start_programs(installed: Cluster, who: str) -> None:
    for verb, resource in (
        ("create", "pods"),
        ("create", "pods/exec"),
        ("create", "serviceaccounts/token"),
        ("impersonate", "users"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("escalate", "clusterroles.rbac.authorization.k8s.io"),
    ):
        assert not may(installed, who, verb, resource, RELEASE), (verb, resource)


# People


def test_the_role_view_sees_everything_and_changes_nothing(installed: Cluster, namespace: str, reader: str) -> None:
    for kind in KINDS:
        assert allowed(installed, reader, f"{kind.plural}.{GROUP}", namespace) == set(READ)


def test_the_role_edit_writes_the_four_configuration_kinds(installed: Cluster, namespace: str, tenant: str) -> None:
    for resource in CONFIGURATION_KINDS:
        assert allowed(installed, tenant, resource, namespace) == set(ALL)
        assert allowed(installed, tenant, resource, "default") == set()


@pytest.mark.requirement("SEC78")
def test_the_role_edit_labels_no_namespace(installed: Cluster, namespace: str, tenant: str) -> None:
    with pytest.raises(CommandFailed, match="Forbidden"):
        installed.kubectl("label", "namespace", namespace, "example.com/team=others", f"--as={tenant}")


@pytest.mark.requirement("SEC57", "SEC58")
def test_the_role_edit_writes_neither_accounts_nor_orders(installed: Cluster, namespace: str, tenant: str) -> None:
    for resource in PROTOCOL_KINDS:
        assert allowed(installed, tenant, resource, namespace) == set(READ)


def test_whoever_may_revoke_reads_cas_and_writes_the_status_of_orders_and_nothing_else(
    installed: Cluster, namespace: str
) -> None:
    revoker = _bound(installed, namespace, "kms-acme-revoker")
    orders = PROTOCOL_KINDS[1]
    assert allowed(installed, revoker, orders, namespace) == {"get", "list"}
    assert allowed(installed, revoker, f"{orders}/status", namespace) == {"update"}
    assert allowed(installed, revoker, orders, "default") == set()
    authorities = f"{AUTHORITIES.plural}.{AUTHORITIES.group}"
    assert allowed(installed, revoker, authorities, namespace) == {"get"}
    for resource in ({*CONFIGURATION_KINDS} - {authorities}) | {PROTOCOL_KINDS[0], "secrets"}:
        assert allowed(installed, revoker, resource, namespace) == set()


def test_whoever_may_manage_accounts_writes_their_status_and_nothing_else(installed: Cluster, namespace: str) -> None:
    manager = _bound(installed, namespace, "kms-acme-account-manager", reads=PROTOCOL_KINDS[0])
    accounts = PROTOCOL_KINDS[0]
    assert allowed(installed, manager, accounts, namespace) == {"get", "list"}
    assert allowed(installed, manager, f"{accounts}/status", namespace) == {"update"}
    assert allowed(installed, manager, accounts, "default") == set()
    for resource in (*CONFIGURATION_KINDS, PROTOCOL_KINDS[1], "secrets"):
        assert allowed(installed, manager, resource, namespace) == set()


@pytest.mark.parametrize("name", ["kms-acme-revoker", "kms-acme-account-manager"])
def test_nobody_may_revoke_or_suspend_until_somebody_lets_him(installed: Cluster, name: str) -> None:
    ours = ("--all-namespaces", "--selector=app.kubernetes.io/name=kms-acme", "--output=json")
    bound = json.loads(installed.kubectl("get", "rolebindings,clusterrolebindings", *ours))["items"]
    roles = {each["roleRef"]["name"] for each in bound}
    assert {"kms-acme-operator", "kms-acme-server"} <= roles
    role = json.loads(installed.kubectl("get", "clusterrole", name, "--output=json"))
    assert name not in roles
    assert not [name for name in role["metadata"]["labels"] if "aggregate" in name]


def test_the_role_edit_writes_no_status(installed: Cluster, namespace: str, tenant: str) -> None:
    for resource in (*CONFIGURATION_KINDS, *PROTOCOL_KINDS):
        assert allowed(installed, tenant, f"{resource}/status", namespace) == set()


@pytest.mark.requirement("SEC57", "SEC58")
def test_a_tenant_cannot_write_himself_an_order_or_its_status(installed: Cluster, namespace: str, tenant: str) -> None:
    here = (f"--namespace={namespace}", f"--as={tenant}")
    order = json.dumps(manifest(ORDERS))
    with pytest.raises(CommandFailed, match=r"cannot create resource \"acmeorders\""):
        installed.kubectl("create", "--filename=-", *here, stdin=order)
    installed.kubectl("create", "--filename=-", f"--namespace={namespace}", stdin=order)
    forged = json.dumps({"status": {"state": "invalid"}})
    with pytest.raises(CommandFailed, match=r"cannot (get|patch) resource \"acmeorders/status\""):
        installed.kubectl("patch", "acmeorder", "example", "--type=merge", "-p", forged, "--subresource=status", *here)


@pytest.mark.parametrize("kind", [PROFILES, CREDENTIALS], ids=lambda kind: kind.plural)
def test_a_status_that_a_tenant_writes_into_a_manifest_is_ignored(
    installed: Cluster, namespace: str, tenant: str, kind: Any
) -> None:
    forged = {
        "type": "Ready",
        "status": "True",
        "reason": "Issued",
        "message": "me too",
        "lastTransitionTime": "2026-11-23T12:00:00Z",
    }
    body = json.dumps({**manifest(kind), "status": {"conditions": [forged]}})
    here = (f"--namespace={namespace}", f"--as={tenant}")
    for command in ("create", "replace"):
        answer = json.loads(installed.kubectl(command, "--filename=-", "--output=json", *here, stdin=body))
        assert [each["status"] for each in answer["status"]["conditions"]] == ["Unknown"]


@pytest.mark.requirement("P5")
async def test_the_doctor_finds_each_right_that_a_program_lacks(installed: Cluster) -> None:
    """With the roles of this checkout none is lacking, and an account without roles lacks them all."""
    cluster = await KubernetesCluster.connect(kubeconfig=str(installed.kubeconfig))
    try:
        rights = tuple(needed_rights(manifests(), release=RELEASE))
        assert await refused_rights(cluster, rights, {"server": SERVER, "operator": OPERATOR}) == ()
        stranger = f"system:serviceaccount:{RELEASE}:stranger"
        refused = await refused_rights(cluster, rights, {"server": SERVER, "operator": stranger})
    finally:
        await cluster.close()
    assert {each.program for each in refused} == {"operator"}
    assert len(refused) > 20
