from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from e2e.reference.__main__ import ROOT, main
from e2e.reference.document import document, fields
from kms.resources.kinds import Kind
from tests.support.crds import KINDS, definition, nodes, schema


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "crds", tmp_path / "crds")
    (tmp_path / "docs").mkdir()
    return tmp_path


def run(project: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["--root", str(project), *options])


def test_the_page_is_written_and_then_up_to_date(project: Path) -> None:
    assert run(project, "--check").exit_code == 1
    assert run(project).exit_code == 0
    assert run(project, "--check").exit_code == 0


def test_a_schema_that_says_something_else_fails_the_check(project: Path) -> None:
    run(project)
    file = project / "crds" / "eabcredentials.yaml"
    file.write_text(file.read_text().replace("The maximum number of accounts of the credential.", "How many."))
    checked = run(project, "--check")
    assert checked.exit_code == 1
    assert "out of date: run `make reference`" in checked.output


def test_a_schema_that_is_missing_is_named(project: Path) -> None:
    (project / "crds" / "acmeorders.yaml").unlink()
    missing = run(project)
    assert missing.exit_code == 1
    assert "acmeorders.yaml" in missing.output


def test_the_page_in_the_project_is_up_to_date() -> None:
    assert run(ROOT, "--check").exit_code == 0


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_every_field_of_a_kind_has_its_line(kind: Kind[Any]) -> None:
    page = document([definition(kind)])
    conditions = "status.conditions[]"
    for path, node in nodes(schema(kind)):
        is_field = path.startswith(("spec.", "status.")) and not path.endswith(("[]", "{}"))
        if is_field and not path.startswith(conditions):
            assert f"| `{path}` |" in page, path
            assert "description" not in node or node["description"].split()[0] in page


def test_lists_maps_and_limits_are_told_in_words() -> None:
    labels = {"type": "object", "additionalProperties": {"type": "string"}}
    rule = {"rule": "true", "message": "must be a | b"}
    names = {"type": "array", "maxItems": 3, "items": {"type": "string", "x-kubernetes-validations": [rule]}}
    spec = {"type": "object", "required": ["names"], "properties": {"labels": labels, "names": names}}
    assert [(path, required) for path, _, required in fields(spec, "spec")] == [
        ("spec.labels", False),
        ("spec.names", True),
    ]
    whole = yaml.safe_load((ROOT / "crds" / "eabcredentials.yaml").read_text())
    parts = whole["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    parts["spec"] = {**spec, "description": "Names such as *.example.com."}
    page = document([whole])
    assert r"Names such as \*.example.com." in page
    assert "| `spec.labels` | map of string |" in page
    assert r"| `spec.names` | list of string | Required. Rule: must be a \| b. (maximum entries 3) |" in page
