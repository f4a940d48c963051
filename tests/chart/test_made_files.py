"""What is made of the chart is up to date: schema, README, kustomize base."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from e2e.chart import kustomize
from e2e.chart.__main__ import differing, made_of_values
from e2e.chart.helm import CHART, ROOT, Helm
from e2e.cluster import Cluster
from e2e.cluster.install import CRDS
from e2e.stories.snippets import INSTALL, snippets
from kms_acme.cli.main import main as command_line
from tests.support.charts import container, of_kind, one, pod_of


def test_schema_and_readme_are_what_the_values_say() -> None:
    assert differing(made_of_values()) == [], "make chart"


def test_kustomize_is_told_of_every_definition() -> None:
    listed = yaml.safe_load((CRDS / "Kustomization").read_text())["resources"]
    assert listed == sorted(each.name for each in CRDS.glob("*.yaml"))


def test_the_kustomize_base_is_the_chart_with_its_defaults(helm: Helm) -> None:
    assert differing(kustomize.files(helm)) == [], "make chart"


def test_kustomize_makes_of_the_base_what_helm_makes_of_the_chart(helm: Helm, cluster: Cluster) -> None:
    built = [each for each in yaml.safe_load_all(cluster.kubectl("kustomize", kustomize.BASE)) if each]
    rendered = helm.render(hooks=False)
    options = one(built, "ConfigMap")
    assert re.fullmatch(f"{kustomize.CONFIG_MAP}-[a-z0-9]+", options["metadata"]["name"])
    keys = {(each["kind"], each["metadata"]["name"]) for each in built if each is not options}
    assert keys == {(each["kind"], each["metadata"]["name"]) for each in rendered} | {("Namespace", "kms-acme")}
    for name in ("server", "operator"):
        ours, theirs = container(built, name), container(rendered, name)
        assert ours["envFrom"] == [{"configMapRef": {"name": options["metadata"]["name"]}}]
        assert ours["args"] == [name, *(each for each in theirs["args"] if each.startswith("--metrics-listen="))]
        wanted = kustomize.options_of(theirs, {})
        assert kustomize.options_of(ours, options["data"]).items() >= wanted.items()
        known = {variable for each in command_line.commands[name].params for variable in [each.envvar]}
        assert wanted.keys() <= known
    for each in (*pod_of(built)["containers"], *pod_of(rendered)["containers"]):
        each.pop("envFrom", None)
        each["args"] = each["args"][:1]
    for kind in ("Deployment", "Role", "ClusterRole", "Service"):
        ours = {each["metadata"]["name"]: each.get("spec", each.get("rules")) for each in of_kind(built, kind)}
        for each in of_kind(rendered, kind):
            wanted = kustomize._without_helm(each)
            assert ours[each["metadata"]["name"]] == wanted.get("spec", wanted.get("rules"))


def test_the_overlay_that_the_page_about_installation_shows_changes_what_it_says(
    cluster: Cluster, tmp_path: Path
) -> None:
    (shown,) = snippets(INSTALL, "kustomize")
    for part in (kustomize.BASE, CRDS):
        shutil.copytree(part, tmp_path / part.relative_to(ROOT))
    overlay = tmp_path / "deploy" / "kustomize" / "ours"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(shown.text)
    built = [each for each in yaml.safe_load_all(cluster.kubectl("kustomize", overlay)) if each]
    (deployment,) = of_kind(built, "Deployment")
    assert deployment["spec"]["replicas"] == 2
    options = one(built, "ConfigMap")
    for each in deployment["spec"]["template"]["spec"]["containers"]:
        assert each["image"].startswith("registry.example.com/kms-acme:")
        assert each["envFrom"] == [{"configMapRef": {"name": options["metadata"]["name"]}}]
        seen = kustomize.options_of(each, options["data"])
        assert seen["KMS_ACME_EXTERNAL_URL"] == "https://acme.example.com"
        assert seen["KMS_ACME_HTTP_URL"] == "http://acme.example.com"
        assert seen["KMS_ACME_SERVICE_NAME"] == "kms-acme", "what the overlay does not name stays"


def test_the_versions_of_chart_and_project_are_one() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == project["version"]
    base = kustomize.BASE
    assert f"kms-acme:{project['version']}\n" in (base / "kms-acme.yaml").read_text()
    assert f"kind load docker-image kms-acme:{project['version']}\n" in (base / "kustomization.yaml").read_text()
    assert chart["description"] == project["description"]


def test_the_chart_lists_the_kinds_that_there_are_with_examples() -> None:
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    listed = {each["name"]: each["kind"] for each in yaml.safe_load(annotations["artifacthub.io/crds"])}
    ours = [yaml.safe_load(each.read_text()) for each in CRDS.glob("*.yaml")]
    assert listed == {each["metadata"]["name"]: each["spec"]["names"]["kind"] for each in ours}
    assert {each["kind"] for each in yaml.safe_load(annotations["artifacthub.io/crdsExamples"])} <= set(listed.values())


@pytest.mark.parametrize("path", sorted(CHART.rglob("*.md")), ids=lambda path: path.name)
def test_a_link_in_the_readme_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target
