"""Which Go is new enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster.build import MODULES
from e2e.cluster.toolchain import on_path, version_of, wanted_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.27 linux/arm64", (1, 27, 0)),
        ("go version go1.28rc1 linux/amd64", (1, 28, 0)),
        ("go version devel linux/amd64", None),
        ("", None),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, int, int] | None) -> None:
    assert version_of(text) == version


def test_the_wanted_version_is_that_of_the_go_line() -> None:
    assert wanted_version((MODULES / "go.mod").read_text(encoding="utf-8")) >= (1, 26, 0)
    with pytest.raises(ValueError, match="no go line"):
        wanted_version("module x\n")


@pytest.mark.parametrize(("version", "found"), [("1.26.0", True), ("1.25.9", False), ("nonsense", False)])
def test_an_old_go_on_path_does_not_count(tmp_path: Path, version: str, found: bool) -> None:
    go = tmp_path / "go"
    go.write_text(f"#!/bin/sh\necho go version go{version} linux/amd64\n", encoding="ascii")
    go.chmod(0o755)
    assert on_path((1, 26, 0), {"PATH": str(tmp_path)}) == (go if found else None)


def test_no_go_on_path_is_none(tmp_path: Path) -> None:
    assert on_path((1, 26, 0), {"PATH": str(tmp_path)}) is None
