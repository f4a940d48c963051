"""The chart's roles and deploy/rbac.yaml are the same rules, and `helm template` grants nobody more than they do."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from e2e.chart.helm import Helm, Manifest
from e2e.cluster.install import RBAC
from tests.support.charts import Values, of_kind, one, rules

SHIPPED: list[Manifest] = [each for each in yaml.safe_load_all(RBAC.read_text()) if each]


def key(manifest: Manifest) -> tuple[str, str, str | None]:
    return manifest["kind"], manifest["metadata"]["name"], manifest["metadata"].get("namespace")


def by_key(manifests: list[Manifest], *kinds: str) -> dict[tuple[str, str, str | None], Manifest]:
    return {key(each): each for kind in kinds for each in of_kind(manifests, kind)}


@pytest.mark.requirement("SEC57")
def test_the_roles_are_those_of_the_development_command(helm: Helm) -> None:
    ours, charts = by_key(SHIPPED, "ClusterRole", "Role"), by_key(helm.render(), "ClusterRole", "Role")
    assert ours.keys() == charts.keys()
    for name, role in ours.items():
        assert rules(role) == rules(charts[name]), name


def test_the_bindings_are_those_of_the_development_command(helm: Helm) -> None:
    kinds = ("ClusterRoleBinding", "RoleBinding")
    ours, charts = by_key(SHIPPED, *kinds), by_key(helm.render(), *kinds)
    assert ours.keys() == charts.keys()
    for name, binding in ours.items():
        assert (binding["roleRef"], binding["subjects"]) == (charts[name]["roleRef"], charts[name]["subjects"]), name


def test_the_rules_for_people_are_aggregated_into_the_same_roles(helm: Helm) -> None:
    def aggregated(manifests: list[Manifest]) -> dict[str, dict[str, str]]:
        return {
            each["metadata"]["name"]: {
                label: value for label, value in each["metadata"]["labels"].items() if "aggregate" in label
            }
            for each in of_kind(manifests, "ClusterRole")
        }

    assert aggregated(SHIPPED) == aggregated(helm.render())
    some = helm.render({"rbac": {"aggregateToDefaultRoles": False}})
    assert {each["metadata"]["name"] for each in of_kind(some, "ClusterRole")} == {
        "kms-acme-server",
        "kms-acme-operator",
        "kms-acme-revoker",
        "kms-acme-account-manager",
        "kms-acme-trust",
        "kms-acme-external-cert-manager",
        "kms-acme-external-signer",
    }


@pytest.mark.requirement("SEC57")
def test_in_some_namespaces_nobody_has_a_right_on_the_whole_cluster(helm: Helm) -> None:
    manifests = helm.render({"watchNamespaces": ["a", "b"]})
    assert not of_kind(manifests, "ClusterRoleBinding")
    bound: dict[str, set[str]] = {}
    for each in of_kind(manifests, "RoleBinding"):
        if each["roleRef"]["kind"] == "ClusterRole":
            bound.setdefault(each["roleRef"]["name"], set()).add(each["metadata"]["namespace"])
    assert bound == {"kms-acme-server": {"a", "b"}, "kms-acme-operator": {"a", "b", "kms-acme"}}


@pytest.mark.requirement("SEC57")
@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["a"]}], ids=["everywhere", "somewhere"])
def test_the_only_role_of_the_server_that_names_secrets_is_in_the_release_namespace(helm: Helm, values: Values) -> None:
    manifests = helm.render(values)
    with_secrets = {
        key(each)
        for each in (*of_kind(manifests, "ClusterRole"), *of_kind(manifests, "Role"))
        if any(resource in {"secrets", "*"} for _, resource, _, _ in rules(each))
    }
    assert with_secrets == {("ClusterRole", "kms-acme-operator", None), ("Role", "kms-acme-server", "kms-acme")}
    for each in of_kind(manifests, "RoleBinding") + of_kind(manifests, "ClusterRoleBinding"):
        if each["roleRef"]["name"] == "kms-acme-operator":
            assert [subject["name"] for subject in each["subjects"]] == ["kms-acme-operator"]


@pytest.mark.requirement("SEC57")
@pytest.mark.parametrize(
    ("namespaces", "kind", "where"),
    [([], "ClusterRoleBinding", [None]), (["a", "b"], "RoleBinding", ["a", "b"])],
    ids=["everywhere", "somewhere"],
)
def test_the_operator_publishes_roots_only_where_somebody_lets_it(
    helm: Helm, namespaces: list[str], kind: str, where: list[str | None]
) -> None:
    def bindings(**values: Any) -> list[Manifest]:
        manifests = helm.render({"watchNamespaces": namespaces, **values})
        bound = of_kind(manifests, "RoleBinding") + of_kind(manifests, "ClusterRoleBinding")
        return [each for each in bound if each["roleRef"]["name"] == "kms-acme-trust"]

    assert bindings() == []
    for values in ({"rbac": {"trust": True}}, {"operator": {"trustFrom": namespaces or ["pki"]}}):
        granted = bindings(**values)
        places = [(each["kind"], each["metadata"].get("namespace")) for each in granted]
        assert places == [(kind, each) for each in where]
        assert {subject["name"] for each in granted for subject in each["subjects"]} == {"kms-acme-operator"}


@pytest.mark.requirement("X50")
def test_the_server_requests_certificates_only_where_an_administrator_lets_it(helm: Helm) -> None:
    def bindings(external: Any, *namespaces: str) -> set[tuple[str, str, str | None]]:
        manifests = helm.render({"watchNamespaces": list(namespaces), "externalAuthorities": external})
        bound = of_kind(manifests, "RoleBinding") + of_kind(manifests, "ClusterRoleBinding")
        granted = [each for each in bound if "-external-" in each["roleRef"]["name"]]
        assert all([one["name"] for one in each["subjects"]] == ["kms-acme-server"] for each in granted)
        return {(each["kind"], each["roleRef"]["name"], each["metadata"].get("namespace")) for each in granted}

    by_cert_manager, by_signer = "kms-acme-external-cert-manager", "kms-acme-external-signer"
    assert bindings({"from": ["pki"]}) == set()
    through_cert_manager = {"from": ["pki"], "certManager": True}
    assert bindings(through_cert_manager) == {
        ("RoleBinding", by_cert_manager, "pki"),
        ("RoleBinding", by_cert_manager, "kms-acme"),
    }
    assert bindings(through_cert_manager, "pki") == {("RoleBinding", by_cert_manager, "pki")}
    assert bindings({"signer": True}) == {("ClusterRoleBinding", by_signer, None)}
    for name, resources in ((by_cert_manager, "certificaterequests"), (by_signer, "certificatesigningrequests")):
        (role,) = (each for each in SHIPPED if key(each) == ("ClusterRole", name, None))
        assert {(each[1], each[3]) for each in rules(role)} == {
            (resources, verb) for verb in ("get", "list", "watch", "create", "delete")
        }


@pytest.mark.requirement("SEC57")
def test_the_operator_may_make_tokens_of_the_servers_account_alone(helm: Helm) -> None:
    manifests = helm.render({"serviceAccount": {"server": {"name": "answers-strangers"}}})
    granted = {
        rule
        for each in (*of_kind(manifests, "ClusterRole"), *of_kind(manifests, "Role"))
        for rule in rules(each)
        if rule[1].startswith("serviceaccounts")
    }
    assert granted == {("", "serviceaccounts/token", "answers-strangers", "create")}


def test_accounts_and_roles_can_be_somebody_elses(helm: Helm) -> None:
    values: dict[str, Any] = {
        "rbac": {"create": False},
        "serviceAccount": {
            "server": {"create": False, "name": "theirs"},
            "operator": {"annotations": {"cloud": "identity"}},
        },
    }
    manifests = helm.render(values)
    kinds = {each["kind"] for each in manifests}
    assert not kinds & {"ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding"}
    account = one(manifests, "ServiceAccount")
    assert account["metadata"]["name"] == "kms-acme-operator"
    assert account["metadata"]["annotations"] == {"cloud": "identity"}
