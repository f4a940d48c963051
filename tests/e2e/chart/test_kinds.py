"""Definitions of other projects' kinds, with a stand-in for Go."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from e2e.chart.kinds import MODULES, definitions
from e2e.cluster.errors import NoSource
from e2e.cluster.progress import Progress

GO = """#!/bin/sh
[ "$1" = version ] && { echo "go version go1.99.0 linux/amd64"; exit; }
cat "@FOLDER@/$(basename "${4%@*}").json"
exit @STATUS@
"""


def environment(folder: Path, *, status: int = 0, **told: dict[str, str]) -> dict[str, str]:
    """Variables under which Go says this of each module."""
    go = folder / "go"
    go.write_text(GO.replace("@FOLDER@", str(folder)).replace("@STATUS@", str(status)))
    go.chmod(0o755)
    for module in MODULES:
        name = module.path.rpartition("/")[2]
        answer = {"Dir": str(folder / name), "Sum": module.sum} | told.get(name.replace("-", "_"), {})
        (folder / f"{name}.json").write_text(json.dumps(answer))
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}


def found(env: dict[str, str]) -> list[Path]:
    return list(definitions(env, Progress(io.StringIO())))


def test_every_file_of_every_module_is_named(tmp_path: Path) -> None:
    files = found(environment(tmp_path))
    assert len(files) == sum(len(each.files) for each in MODULES)
    assert files[0].is_relative_to(tmp_path / "gateway-api")


def test_a_module_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoSource, match=r"cert-manager v\S+ has the checksum h1:other, which is not the pinned one"):
        found(environment(tmp_path, cert_manager={"Sum": "h1:other"}))


def test_a_module_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    with pytest.raises(NoSource, match=r"gateway-api could not be downloaded: no such host"):
        found(environment(tmp_path, status=1, gateway_api={"Error": "no such host"}))
