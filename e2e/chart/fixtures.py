"""Helm for tests. Tests that use it are marked `cluster`, since helm has to be built first, too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from e2e.chart.helm import Helm, program
from e2e.cluster.progress import Progress


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use helm."""
    for item in items:
        if "helm" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Run helm without a cluster."""
    return Helm(program(os.environ, Progress(sys.stderr)), Path(tmp_path_factory.mktemp("helm")))
