"""The fixtures that all other tests on a real cluster stand on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.cluster import Cluster, CommandFailed


def test_the_namespace_is_there_and_has_a_service_account(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=60s")


def test_an_error_of_kubectl_is_raised_with_what_it_said(cluster: Cluster) -> None:
    with pytest.raises(CommandFailed, match="not found") as failed:
        cluster.kubectl("get", "secret", "none-such")
    assert failed.value.status == 1


def test_an_error_of_kubectl_is_returned_when_it_is_expected(cluster: Cluster) -> None:
    assert "not found" in cluster.kubectl("get", "secret", "none-such", check=False)


def test_other_programs_are_run_as_administrator_too(cluster: Cluster) -> None:
    assert cluster.run(Path("/bin/sh"), "-c", "kubectl config current-context") == "kms-acme\n"
    with pytest.raises(CommandFailed, match="sh -c exit 7 ended with status 7"):
        cluster.run(Path("/bin/sh"), "-c", "exit 7")


def test_a_service_accounts_kubeconfig_acts_with_its_rights_only(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    config = cluster.kubeconfig_for("reader", namespace)
    said = cluster.kubectl("--kubeconfig", config, "get", "secrets", "-n", namespace, check=False)
    assert f'User "system:serviceaccount:{namespace}:reader" cannot list resource "secrets"' in said


def test_the_audit_log_counts_requests_by_user_verb_and_resource(cluster: Cluster, namespace: str) -> None:
    audit = cluster.audit()
    cluster.kubectl("create", "configmap", "one", "-n", namespace)
    cluster.kubectl("get", "configmap", "one", "-n", namespace)
    assert (
        audit.writes(resource="configmaps", user="kubernetes-admin"),
        audit.reads(resource="configmaps", user="kubernetes-admin"),
    ) == (1, 1)
    audit.mark()
    assert audit.requests(resource="configmaps", user="kubernetes-admin") == []


def test_the_audit_log_knows_who_with_which_program_and_no_content(cluster: Cluster, namespace: str) -> None:
    audit = cluster.audit()
    cluster.kubectl("create", "secret", "generic", "one", "-n", namespace, "--from-literal=key=not-to-be-logged")
    (request,) = audit.requests(resource="secrets", user="kubernetes-admin")
    assert (request.verb, request.namespace, request.status) == ("create", namespace, 201)
    assert request.user_agent.startswith("kubectl/")
    assert "not-to-be-logged" not in (cluster.log("kube-apiserver").parent / "audit.log").read_text()


def test_what_was_written_survives_a_stop_of_the_api_server(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "kept", "-n", namespace, "--from-literal=a=b")
    cluster.stop_apiserver()
    try:
        assert "refused" in cluster.kubectl("get", "namespaces", "--request-timeout=2s", check=False)
    finally:
        cluster.start_apiserver()
    kept = json.loads(cluster.kubectl("get", "configmap", "kept", "-n", namespace, "-o", "json"))
    assert kept["data"] == {"a": "b"}


def test_our_kinds_are_installed(installed: Cluster) -> None:
    kinds = installed.kubectl("api-resources", "--api-group=pki.kms.hanzo.ai", "-o", "name").split()
    assert len(kinds) == 8
