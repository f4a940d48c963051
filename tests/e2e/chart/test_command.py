"""`python -m e2e.chart --check` names the files that are out of date."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from e2e.chart import __main__ as command
from e2e.chart.helm import CHART


def test_files_that_are_missing_or_different_differ(tmp_path: Path) -> None:
    (tmp_path / "same").write_text("a")
    (tmp_path / "other").write_text("a")
    wanted = {tmp_path / "same": "a", tmp_path / "other": "b", tmp_path / "missing": "c"}
    assert command.differing(wanted) == [tmp_path / "other", tmp_path / "missing"]


def test_a_check_ends_with_1_and_names_what_is_out_of_date(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chart", "--check"])
    assert command.main() == 0
    monkeypatch.setattr(command, "made_of_values", lambda: {CHART / "README.md": "other"})
    assert command.main() == 1
    assert "charts/kms-acme/README.md is out of date: run `make chart`" in capsys.readouterr().out


def test_a_helm_that_somebody_names_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chart", "--build"])
    monkeypatch.setenv("HELM", "/opt/helm")
    assert command.main() == 0
    assert capsys.readouterr().out == "/opt/helm\n"
