"""The Go modules that programs of a node are built from."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from e2e.cluster.build import MODULES as CONTROL_PLANE
from e2e.cluster.node.programs import MODULES, builder
from e2e.cluster.progress import Progress


def required(module: Path) -> dict[str, str]:
    """Versions that a go.mod pins."""
    return dict(re.findall(r"^\s+(\S+) (v\S+)", (module / "go.mod").read_text(encoding="utf-8"), re.MULTILINE))


def test_node_and_control_plane_are_of_the_same_version() -> None:
    name = "k8s.io/kubernetes"
    assert required(MODULES / "kubernetes")[name] == required(CONTROL_PLANE)[name]


@pytest.mark.parametrize("module", sorted(each.name for each in MODULES.iterdir()))
def test_programs_have_a_folder_that_changes_with_their_sources(module: str, tmp_path: Path) -> None:
    made = builder(module, Progress(io.StringIO()), {"XDG_CACHE_HOME": str(tmp_path)})
    assert made.folder.parent == tmp_path / "kms-acme" / "cluster"
    assert len(made.folder.name) == 16
    assert made.packages
