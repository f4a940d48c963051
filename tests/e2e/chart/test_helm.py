"""Running helm, with a stand-in for it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from e2e.chart.helm import Helm, program
from e2e.cluster.errors import CommandFailed
from e2e.cluster.progress import Progress


def stand_in(folder: Path, script: str) -> Helm:
    path = folder / "helm"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Helm(path, folder / "home", {"KUBECONFIG": "/cluster"})


def test_what_a_person_has_set_up_for_helm_does_not_count(tmp_path: Path) -> None:
    said = stand_in(tmp_path, 'echo "$HELM_CONFIG_HOME $HELM_CACHE_HOME $HELM_DATA_HOME $KUBECONFIG"').run()
    assert said.split() == [*(str(tmp_path / "home" / each) for each in ("config", "cache", "data")), "/cluster"]


def test_without_a_cluster_helm_finds_none(tmp_path: Path) -> None:
    helm = stand_in(tmp_path, 'echo "$KUBECONFIG"')
    assert Helm(helm.program, helm.home).run() == "/dev/null\n"


def test_values_are_handed_over_in_a_file(tmp_path: Path) -> None:
    helm = stand_in(tmp_path, 'cat "${2#--values=}"')
    assert json.loads(helm.with_values({"a": 1}, "template")) == {"a": 1, "image": {"repository": "kms-acme"}}


def test_the_image_is_named_unless_the_values_name_it(tmp_path: Path) -> None:
    helm = stand_in(tmp_path, 'cat "${2#--values=}"')
    said = helm.with_values({"image": {"repository": "other", "tag": "1"}}, "template")
    assert json.loads(said) == {"image": {"repository": "other", "tag": "1"}}


def test_an_error_carries_what_helm_said(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no such value"):
        stand_in(tmp_path, "echo no such value >&2; exit 1").run("template")


def test_rendering_names_what_the_cluster_serves(tmp_path: Path) -> None:
    helm = stand_in(tmp_path, 'for each; do echo "- $each"; done; echo ---')
    (said,) = helm.render({}, release="r", namespace="n", apis=("a/v1/B",), hooks=False)
    assert list(said)[:2] == ["template", "r"]
    assert {"--namespace=n", "--api-versions=a/v1/B", "--no-hooks"} <= set(said)


def test_a_helm_that_is_named_is_taken() -> None:
    assert program({"HELM": "/opt/helm"}, Progress(io.StringIO())) == Path("/opt/helm")
