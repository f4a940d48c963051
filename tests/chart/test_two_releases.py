"""Two releases of the chart in one namespace: nothing of the one has the name of something of the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.chart.helm import Helm, Manifest
from e2e.cluster import Cluster
from kms.contract import lease_name
from kms.resources.kinds import AUTHORITIES
from kms_acme.cli.operator_options import operator_settings
from kms_acme.cli.server_options import server_settings
from tests.chart.test_pods import parsed
from tests.support.charts import container
from tests.support.eventually import eventually
from tests.support.manifests import manifest, text
from tests.support.operating import start_operator

NAMESPACE = "kms-acme"
RELEASES = ("kms-acme", "shop")


def render(helm: Helm, release: str) -> list[Manifest]:
    return helm.render({"crds": {"enabled": False}, "watchNamespaces": [release]}, release=release, namespace=NAMESPACE)


def test_no_object_of_one_has_the_name_of_an_object_of_the_other(helm: Helm) -> None:
    names = [
        {(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in render(helm, release)}
        for release in RELEASES
    ]
    assert not names[0] & names[1]


def test_no_secret_and_no_lease_that_the_programs_of_one_keep_is_the_others(helm: Helm, tmp_path: Path) -> None:
    kept = []
    for release in RELEASES:
        manifests = render(helm, release)
        operator = operator_settings(parsed(container(manifests, "operator")["args"], tmp_path))
        server = server_settings(parsed(container(manifests, "server")["args"], tmp_path))
        assert (server.nonce_secret, server.serving_secret) == (operator.nonce_secret, operator.serving_secret)
        assert server.peer_service
        kept += [operator.nonce_secret, operator.serving_secret, operator.serving_authority, operator.lease_name]
        kept += [lease_name(server.service_name, "server")]
    assert len(set(kept)) == len(kept)


@pytest.mark.cluster
def test_both_can_be_installed_and_each_operator_serves_its_own_namespaces(
    helm: Helm, installed: Cluster, namespace: str, tmp_path: Path
) -> None:
    """What no role forbids: the operators have the same rights here, and keep out of each other's way all the same."""
    theirs = f"{namespace}-theirs"
    installed.kubectl("create", "namespace", theirs)
    names = {f"{each}-{secret}" for each in (namespace, theirs) for secret in ("nonce", "serving", "serving-ca")}
    running = []
    try:
        for watched in (namespace, theirs):
            authority = manifest(AUTHORITIES, {"internal.subject.commonName": watched}, name="issuing")
            installed.kubectl("-n", watched, "apply", "-f", "-", stdin=text(authority))
            started = start_operator(
                installed,
                tmp_path / f"{watched}.log",
                external_url=f"https://{watched}.example.com",
                service_name=watched,
                serving_secret=f"{watched}-serving",
                lease_name=f"{watched}-operator",
                watch_namespaces=(watched,),
            )
            running.append(started)
        for watched in (namespace, theirs):
            installed.kubectl("-n", watched, "wait", "--for=condition=Ready", "--timeout=60s", "kca/issuing")
        eventually(lambda: names <= set(secrets(installed)), seconds=30, why=lambda: sorted(secrets(installed)))
        values = [secrets(installed)[each].get("key") for each in (f"{namespace}-nonce", f"{theirs}-nonce")]
        assert values[0] != values[1]
        keys = {each for each in secrets(installed) if each.startswith("ca-")}
        assert {f"ca-{uid(installed, each)}" for each in (namespace, theirs)} <= keys
    finally:
        for each in running:
            each.kill()
        installed.kubectl("delete", "namespace", theirs, "--wait=false")
        installed.kubectl("-n", NAMESPACE, "delete", "secrets", "--ignore-not-found", *sorted(names))


def secrets(cluster: Cluster) -> dict[str, dict[str, str]]:
    items = json.loads(cluster.kubectl("-n", NAMESPACE, "get", "secrets", "--output=json"))["items"]
    return {each["metadata"]["name"]: each.get("data", {}) for each in items}


def uid(cluster: Cluster, namespace: str) -> str:
    return cluster.kubectl("-n", namespace, "get", "kca", "issuing", "--output=jsonpath={.metadata.uid}")
