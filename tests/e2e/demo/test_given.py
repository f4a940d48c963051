"""A cluster of the user's: which one, what the demo puts there, and that it takes away no more than that."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from e2e.demo.__main__ import main
from e2e.demo.given import GivenCluster, GivenClusterError, Traces, confined, documents
from e2e.demo.introduction import introduction
from e2e.demo.steps import ROOT

RBAC = ROOT / "deploy" / "rbac.yaml"
SAMPLES = sorted((ROOT / "deploy" / "samples").glob("*.yaml"))


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    file = tmp_path / "kubeconfig"
    contexts: list[dict[str, Any]] = [{"name": name, "context": {}} for name in ("kind", "staging")]
    file.write_text(yaml.safe_dump({"contexts": contexts, "current-context": "kind"}))
    return file


def make(*variables: str, **environment: str) -> str:
    """The command that `make demo` would run."""
    done = subprocess.run(
        ("make", "--dry-run", "demo", *variables),
        cwd=ROOT,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("MAKE")}, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return " ".join(done.stdout.splitlines()[-1].split())


def test_make_hands_on_what_its_command_line_names_and_no_everyday_kubeconfig() -> None:
    assert make(KUBECONFIG="/production", CONTEXT="production").endswith("python -m e2e.demo")
    assert make("KUBECONFIG=my file", "CONTEXT=kind").endswith("e2e.demo --kubeconfig 'my file' --context 'kind'")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--kubeconfig", "/none"], "File '/none' does not exist"),
        (["--kubeconfig", "KUBECONFIG", "--context", "prod"], "has no context prod: it has kind, staging"),
        (["--kubeconfig", "BROKEN"], "is not a kubeconfig"),
        (["--kubeconfig", "EMPTY"], "has no current context, name one: it has none"),
        (["--context", "kind"], "--context requires --kubeconfig"),
    ],
    ids=str,
)
def test_a_cluster_that_is_not_there_ends_the_demo_with_2_before_it_begins(
    kubeconfig: Path, arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(kubeconfig.parent / "state"))
    broken, empty = kubeconfig.with_name("broken"), kubeconfig.with_name("empty")
    broken.write_text("{")
    empty.touch()
    places = {"KUBECONFIG": kubeconfig, "BROKEN": broken, "EMPTY": empty}
    result = CliRunner().invoke(main, [str(places.get(each, each)) for each in arguments])
    assert result.exit_code == 2
    assert complaint in result.output
    assert not (kubeconfig.parent / "state").exists()


def test_without_a_kubectl_it_ends_likewise(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = CliRunner().invoke(main, ["--kubeconfig", str(kubeconfig)])
    assert (result.exit_code, "requires kubectl" in result.output) == (2, True)


def test_the_current_context_is_the_default(kubeconfig: Path) -> None:
    assert GivenCluster.named(kubeconfig, None) == GivenCluster(kubeconfig, "kind")
    assert GivenCluster.named(kubeconfig, "staging").context == "staging"


def test_the_introduction_says_what_is_built_and_how_long_it_takes(kubeconfig: Path) -> None:
    first = introduction(None, ["etcd", "kube-apiserver"])
    assert "builds etcd, kube-apiserver: 8 to 14 minutes on two cores" in first
    assert "90 MB" in first
    later = introduction(None, [])
    assert "half a minute" in later
    assert "minutes on" not in later
    assert all("make demo KUBECONFIG=FILE CONTEXT=NAME" in each for each in (first, later))
    assert f"context kind of {kubeconfig}. It builds nothing" in introduction(
        GivenCluster(kubeconfig, "kind"), ["etcd"]
    )


def test_everything_is_confined_to_one_namespace() -> None:
    ours = list(confined(documents(RBAC, *SAMPLES), "demo"))
    assert {each["metadata"]["namespace"] for each in ours} == {"demo"}
    kinds = {each["kind"] for each in ours}
    assert kinds >= {"ServiceAccount", "Role", "RoleBinding", "CertificateProfile"}
    assert not kinds & {"Namespace", "ClusterRole", "ClusterRoleBinding"}
    names = [(each["kind"], each["metadata"]["name"]) for each in ours]
    assert len(names) == len(set(names))
    roles = {each["metadata"]["name"]: each for each in ours if each["kind"] == "Role"}
    for binding in (each for each in ours if each["kind"] == "RoleBinding"):
        assert binding["roleRef"]["kind"] == "Role"
        assert binding["roleRef"]["name"] in roles
        assert {each["namespace"] for each in binding["subjects"]} == {"demo"}


def test_the_programs_have_the_rules_that_they_have_elsewhere() -> None:
    def rules(manifests: Sequence[dict[str, Any]], name: str) -> list[Any]:
        return [
            each["rules"] for each in manifests if each["kind"].endswith("Role") and each["metadata"]["name"] == name
        ]

    shipped, ours = list(documents(RBAC)), list(confined(documents(RBAC), "demo"))
    for program in ("kms-acme-server", "kms-acme-operator"):
        of_all_namespaces, of_the_release = rules(shipped, program)
        assert rules(ours, f"{program}-resources") == [of_all_namespaces]
        assert rules(ours, program) == [of_the_release]


KUBECTL = """#!/bin/sh
shift
case "$*" in
    "get customresourcedefinitions"*) printf 'customresourcedefinition.apiextensions.k8s.io/%s\\n' theirs ours ;;
    get*) cat "{folder}/objects" ;;
    "delete namespace"*) [ ! -e "{folder}/refuse" ] || {{ echo forbidden >&2; exit 1; }} ;;
esac
echo "$*" >>"{folder}/calls"
"""


class Kubectl:
    """A stand-in for kubectl, on a cluster with two definitions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "kubectl"
        self.program.write_text(KUBECTL.format(folder=folder))
        self.program.chmod(0o755)
        self.objects("")

    def objects(self, names: str) -> None:
        (self.folder / "objects").write_text(names)

    def deletions(self) -> list[str]:
        calls = (self.folder / "calls").read_text().splitlines()
        return [" ".join(each.split()[1:3]) for each in calls if each.startswith("delete")]

    def traces(self, *definitions: str) -> Traces:
        return Traces.planned(str(self.program), self.folder / "kubeconfig", definitions)


@pytest.fixture
def kubectl(tmp_path: Path) -> Kubectl:
    return Kubectl(tmp_path)


def test_only_what_the_cluster_lacks_is_planned_and_each_demo_has_a_namespace_of_its_own(kubectl: Kubectl) -> None:
    first, second = kubectl.traces("ours", "lacking"), kubectl.traces()
    assert first.definitions == ("lacking",)
    assert first.namespace != second.namespace


def test_traces_are_found_again(kubectl: Kubectl, tmp_path: Path) -> None:
    planned = kubectl.traces("lacking")
    planned.write(tmp_path / "traces.json")
    assert Traces.read(tmp_path / "traces.json") == planned
    assert Traces.read(tmp_path / "none") is None


def planned_traces(kubectl: Kubectl) -> Traces:
    return Traces(str(kubectl.program), "kubeconfig", "demo", definitions=("ours", "never made"))


def test_the_namespace_goes_and_the_definitions_that_were_made(kubectl: Kubectl) -> None:
    assert planned_traces(kubectl).remove() == []
    assert kubectl.deletions() == ["namespace demo", "customresourcedefinitions ours"]


def test_definitions_that_others_use_by_now_stay(kubectl: Kubectl) -> None:
    kubectl.objects("certificateauthority/theirs\n")
    assert planned_traces(kubectl).remove() == ["certificateauthority/theirs"]
    assert kubectl.deletions() == ["namespace demo"]


def test_what_the_cluster_refuses_to_delete_is_an_error(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "refuse").touch()
    with pytest.raises(GivenClusterError, match=r"kubectl delete namespace demo .* failed: forbidden"):
        planned_traces(kubectl).remove()
