"""The chart and a real API server: dry runs, Pod Security, install, upgrade, uninstall."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from e2e.chart import kinds
from e2e.chart.helm import CHART, NAMESPACE, RELEASE, ROOT, Helm, Manifest
from e2e.cluster import Cluster, CommandFailed
from e2e.cluster.progress import Progress
from e2e.stories.snippets import HELM, INSTALL, OPERATIONS, snippets
from tests.support.charts import EVERYTHING, PERMUTATIONS, Values, of_kind, one, pod_of


@pytest.fixture(scope="module")
def empty(clusters: Callable[..., AbstractContextManager[Cluster]]) -> Iterator[Cluster]:
    """A cluster of our own that others' kinds are defined in, and ours are not."""
    with clusters() as cluster:
        if not cluster.is_ours:
            pytest.skip("installs into an empty cluster, which one of your own is not")
        for each in kinds.definitions(os.environ, Progress(sys.stderr)):
            cluster.kubectl("apply", "--server-side", "--filename", each)
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        cluster.kubectl("create", "namespace", NAMESPACE)
        yield cluster


@pytest.fixture(scope="module")
def helm_there(helm: Helm, empty: Cluster) -> Helm:
    """Helm that works on this cluster."""
    return Helm(helm.program, helm.home, empty.env)


def dry_run(cluster: Cluster, manifests: list[Manifest], *flags: str) -> str:
    """What the API server says when it is asked to take the manifests, without that it keeps them."""
    text = "\n---\n".join(json.dumps(each) for each in manifests)
    return cluster.kubectl("apply", "--server-side", "--dry-run=server", "--filename=-", *flags, stdin=text)


def test_the_api_server_takes_what_is_rendered(helm: Helm, empty: Cluster) -> None:
    rendered: dict[str, Manifest] = {}
    for values in PERMUTATIONS.values():
        for each in helm.render(values, apis=kinds.APIS, hooks=False):
            # kubectl needs a namespace; where none belongs it is not looked at.
            each["metadata"].setdefault("namespace", NAMESPACE)
            rendered[json.dumps(each, sort_keys=True)] = each
    said = dry_run(empty, list(rendered.values()), "--field-manager=test")
    assert said.count("serverside-applied") == len(rendered)


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_no_field_is_misspelt(helm: Helm, empty: Cluster, values: Values) -> None:
    """Server-side apply refuses fields that a schema does not know; `create` with strict validation names them too."""
    manifests = of_kind(helm.render(values, apis=kinds.APIS), "Deployment")
    text = json.dumps(manifests[0])
    empty.kubectl("create", "--dry-run=server", "--validate=strict", "--filename=-", stdin=text)
    broken = json.loads(text)
    broken["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(CommandFailed, match="livenesProbe"):
        empty.kubectl("create", "--dry-run=server", "--validate=strict", "--filename=-", stdin=json.dumps(broken))


# Pod Security


@pytest.fixture
def restricted(empty: Cluster) -> Iterator[str]:
    """A namespace that takes pods of the level `restricted` only."""
    name = f"restricted-{secrets.token_hex(4)}"
    empty.kubectl("create", "namespace", name)
    empty.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    empty.kubectl("delete", "namespace", name, "--wait=false")


def pod(manifests: list[Manifest], namespace: str) -> Manifest:
    """A pod as the Deployment makes it, of an account that is there."""
    spec = {**pod_of(manifests), "serviceAccountName": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": namespace}, "spec": spec}


@pytest.mark.requirement("SEC68")
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_pods_pass_where_pod_security_is_restricted(
    helm: Helm, empty: Cluster, restricted: str, values: Values
) -> None:
    manifests = helm.render(values, apis=kinds.APIS)
    empty.kubectl("create", "--filename=-", stdin=json.dumps(pod(manifests, restricted)))
    test = one(manifests, "Pod")
    test["metadata"] |= {"namespace": restricted, "annotations": {}}
    empty.kubectl("create", "--filename=-", stdin=json.dumps(test))


def test_pods_that_may_more_do_not(helm: Helm, empty: Cluster, restricted: str) -> None:
    manifests = helm.render({"server": {"securityContext": {"allowPrivilegeEscalation": True}}})
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        empty.kubectl("create", "--filename=-", stdin=json.dumps(pod(manifests, restricted)))


# The life of a release


def install(helm: Helm, command: str, values: Values, *flags: str) -> str:
    return helm.with_values(values, command, RELEASE, CHART, f"--namespace={NAMESPACE}", *flags)


def deployed(cluster: Cluster, kind: str, name: str = RELEASE) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", kind, name, f"--namespace={NAMESPACE}", "--output=json"))
    return found


@pytest.fixture
def release(helm_there: Helm, empty: Cluster) -> Iterator[Helm]:
    """The chart, installed with its defaults; nothing is left of it afterwards."""
    install(helm_there, "install", {})
    yield helm_there
    helm_there.run("uninstall", RELEASE, f"--namespace={NAMESPACE}", "--ignore-not-found")


def test_an_installation_with_defaults_brings_all_that_is_rendered(helm: Helm, release: Helm, empty: Cluster) -> None:
    for each in helm.render(hooks=False):
        where = [f"--namespace={each['metadata']['namespace']}"] if "namespace" in each["metadata"] else []
        empty.kubectl("get", each["kind"], each["metadata"]["name"], *where)


def test_the_roles_of_an_installation_keep_the_server_from_secrets_elsewhere(release: Helm, empty: Cluster) -> None:
    server = f"--as=system:serviceaccount:{NAMESPACE}:{RELEASE}-server"
    empty.kubectl("create", "secret", "generic", "private", "--from-literal=a=b", "--namespace=default")
    try:
        for asked in (["secret", "private"], ["secrets"]):
            with pytest.raises(CommandFailed, match="Forbidden"):
                empty.kubectl("get", *asked, "--namespace=default", server)
        empty.kubectl("get", "secrets", f"--namespace={NAMESPACE}", server)
    finally:
        empty.kubectl("delete", "secret", "private", "--namespace=default")


def test_a_release_is_upgraded_with_other_values(helm: Helm, release: Helm, empty: Cluster) -> None:
    """There is no earlier version of the chart yet; what an upgrade may stumble over is values that change."""
    uid = deployed(empty, "deployment")["metadata"]["uid"]
    steps: tuple[Values, ...] = (
        EVERYTHING,
        {
            "watchNamespaces": ["default"],
            "image": {"tag": "0.2.0"},
            "replicaCount": 3,
            "http": {"enabled": False, "url": "http://crl.example.com"},
        },
        {},
    )
    for values in steps:
        install(release, "upgrade", values, "--reset-values")
        there = deployed(empty, "deployment")
        wanted = one(helm.render(values, apis=kinds.APIS), "Deployment")
        assert there["metadata"]["uid"] == uid, "made anew instead of changed: its pods would all have gone at once"
        assert there["spec"]["replicas"] == wanted["spec"]["replicas"]
        images = [each["image"] for each in there["spec"]["template"]["spec"]["containers"]]
        assert images == [each["image"] for each in wanted["spec"]["template"]["spec"]["containers"]]
        bound = empty.kubectl("get", "clusterrolebindings", f"--selector=app.kubernetes.io/instance={RELEASE}")
        assert bool(values.get("watchNamespaces")) is (f"{RELEASE}-server" not in bound)


def test_accounts_and_orders_survive_the_release_and_a_new_one_takes_them_over(release: Helm, empty: Cluster) -> None:
    profile = {
        "apiVersion": "pki.kms.hanzo.ai/v1alpha1",
        "kind": "CertificatePolicy",
        "metadata": {"name": "kept", "namespace": "default"},
        "spec": {},
    }
    empty.kubectl("create", "--filename=-", stdin=json.dumps(profile))
    said = release.run("uninstall", RELEASE, f"--namespace={NAMESPACE}")
    assert "kept due to the resource policy" in said
    assert empty.kubectl("get", "kpol", "kept", "--namespace=default", "--output=name")
    with pytest.raises(CommandFailed, match="not found"):
        deployed(empty, "deployment")
    install(release, "install", {})
    assert empty.kubectl("get", "kpol", "kept", "--namespace=default", "--output=name")
    empty.kubectl("delete", "kpol", "kept", "--namespace=default")


def test_an_upgrade_brings_the_definitions_up_to_date(release: Helm, empty: Cluster) -> None:
    name = "acmeorders.pki.kms.hanzo.ai"
    older = '[{"op": "replace", "path": "/spec/names/shortNames", "value": ["older"]}]'
    empty.kubectl("patch", "crd", name, "--type=json", "--patch", older)
    with pytest.raises(CommandFailed, match="conflict"):  # somebody else has changed it: Helm says so
        install(release, "upgrade", {})
    install(release, "upgrade", {}, "--force-conflicts")
    assert json.loads(empty.kubectl("get", "crd", name, "--output=json"))["spec"]["names"]["shortNames"] != ["older"]


def test_the_command_that_the_readme_begins_with_is_all_it_takes(
    helm_there: Helm, clusters: Callable[..., AbstractContextManager[Cluster]]
) -> None:
    command = next(snippets(CHART / "README.md")).text
    assert command.startswith("helm install kms-acme charts/kms-acme ")
    assert command in next(block.text for block in snippets(INSTALL) if block.text.startswith(HELM))
    with clusters() as fresh:
        path = f"{helm_there.program.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **fresh.env, "PATH": path, "HELM_CACHE_HOME": str(helm_there.home)}
        subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, check=True, capture_output=True, timeout=180)
        assert deployed(fresh, "deployment")["spec"]["replicas"] == 1


def test_without_helm_the_kustomize_base_is_all_it_takes_and_helm_takes_over_when_told_to(
    helm_there: Helm, clusters: Callable[..., AbstractContextManager[Cluster]]
) -> None:
    (command,) = (block.text for block in snippets(INSTALL) if "kustomize" in block.text)
    with clusters() as fresh:
        subprocess.run(["bash", "-ec", command], cwd=ROOT, env={**os.environ, **fresh.env}, check=True, timeout=180)
        assert deployed(fresh, "deployment")["spec"]["replicas"] == 1
        fresh.kubectl("get", "clusterroles", f"{RELEASE}-server", f"{RELEASE}-operator")
        subprocess.run(["bash", "-ec", command], cwd=ROOT, env={**os.environ, **fresh.env}, check=True, timeout=180)
        there = Helm(helm_there.program, helm_there.home, fresh.env)
        with pytest.raises(CommandFailed, match=r"cannot be imported|invalid ownership metadata"):
            install(there, "install", {})
        install(there, "install", {}, "--take-ownership", "--force-conflicts")


def test_an_upgrade_and_the_way_back_are_as_the_page_about_operations_says(release: Helm, empty: Cluster) -> None:
    def run(command: str) -> None:
        path = f"{release.program.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **empty.env, "PATH": path, "HELM_CACHE_HOME": str(release.home)}
        subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, check=True, capture_output=True, timeout=180)

    upgrade, back = (block.text for block in snippets(OPERATIONS) if block.text.startswith(HELM))
    install(release, "upgrade", {"replicaCount": 2})
    uid = deployed(empty, "deployment")["metadata"]["uid"]
    run(upgrade)
    assert deployed(empty, "deployment")["spec"]["replicas"] == 2, "the values of the release are forgotten"
    install(release, "upgrade", {"replicaCount": 3})
    run(back)
    there = deployed(empty, "deployment")
    assert (there["metadata"]["uid"], there["spec"]["replicas"]) == (uid, 2)
    assert empty.kubectl("get", "crds", "--output=name").count("pki.kms.hanzo.ai") == 8


def test_an_installation_without_a_namespace_makes_it(helm_there: Helm, empty: Cluster) -> None:
    try:
        values = {"crds": {"enabled": False}}
        helm_there.with_values(values, "install", "pki", CHART, "--namespace=fresh", "--create-namespace")
        assert "pki-kms-acme" in empty.kubectl("get", "deployment", "--namespace=fresh", "--output=name")
    finally:
        helm_there.run("uninstall", "pki", "--namespace=fresh", "--ignore-not-found")
