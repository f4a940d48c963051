from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from e2e.conformance.__main__ import ROOT, main
from e2e.conformance.document import FOLDER
from e2e.conformance.lines import by_id, read

PRODUCT = ("acme_server", "kms", "kms_acme", "operator", "deploy")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    lines = tmp_path / "tests" / "conformance" / "1.toml"
    lines.parent.mkdir(parents=True)
    lines.write_text('part = 1\ntitle = "RFC 1"\nabout = "One."\n[lines.M1]\nsays = "A."\nmet = "B."\n')
    (tmp_path / "tests" / "test_a.py").write_text('@pytest.mark.requirement("M1")\ndef test_a(): ...\n')
    return tmp_path


def run(project: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["--root", str(project), *options])


def test_the_page_is_written_and_then_up_to_date(project: Path) -> None:
    assert run(project, "--check").exit_code == 1
    assert run(project).exit_code == 0
    assert run(project, "--check").exit_code == 0
    assert "| M1 | A. | B. |" in (project / "tests" / "conformance" / "README.md").read_text()


def test_a_page_that_is_out_of_date_fails_the_check(project: Path) -> None:
    run(project)
    (project / "tests" / "conformance" / "README.md").write_text("old")
    checked = run(project, "--check")
    assert (checked.exit_code, (project / "tests" / "conformance" / "README.md").read_text()) == (1, "old")
    assert "out of date: run `make conformance`" in checked.output


def test_a_line_without_a_test_fails_the_check_and_is_shown_all_the_same(project: Path) -> None:
    (project / "tests" / "test_a.py").write_text("")
    assert run(project).exit_code == 1
    assert "M1 has neither a test nor a reason" in run(project, "--check").output
    assert "| M1 | A. | B. |  |" in (project / "tests" / "conformance" / "README.md").read_text()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tests/test_a.py", '@pytest.mark.requirement("M2")\ndef test_a(): ...\n'),
        ("tests/test_a.py", "@pytest.mark.requirement(M1)\ndef test_a(): ...\n"),
        ("tests/conformance/2.toml", 'part = 2\ntitle = "X"\nabout = "Y"\n[lines.M2]\n'),
    ],
)
def test_what_cannot_be_true_fails(project: Path, file: str, text: str) -> None:
    (project / file).write_text(text)
    assert run(project).exit_code == 1


def test_every_line_of_the_two_numbered_lists_is_there() -> None:
    known = by_id(read(ROOT / FOLDER)).keys()
    rfc8555 = {id_.lstrip("MSo") for id_ in known if id_.lstrip("MSo").isdecimal()}
    assert rfc8555 == {str(number) for number in range(1, 160)}
    security = {f"SEC{number:02}" for number in (*range(1, 69), *range(71, 87))} | {"SEC12b", "SEC12c"}
    assert {id_ for id_ in known if id_.startswith("SEC")} == security


def test_every_module_that_a_requirement_names_exists() -> None:
    modules = [f"/{path.relative_to(ROOT)}" for folder in PRODUCT for path in (ROOT / folder).rglob("*.py")]
    for line in by_id(read(ROOT / FOLDER)).values():
        for name in re.findall(r"`([\w/]+\.py)`", f"{line.met} {line.departs} {line.reason}"):
            assert any(module.endswith(f"/{name}") for module in modules), f"{line.id} names {name}"
