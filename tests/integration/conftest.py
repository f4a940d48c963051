"""One running installation for all tests of the session that need one: starting it costs seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster import Cluster
from tests.support.installation import Installation
from tests.support.installation import installation as running_installation


@pytest.fixture(scope="session")
def installation(installed: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The operator and a server on the cluster, both ready.

    A test that stops, kills or adds a program leaves all as it was: the installation is ready, with one server.
    """
    with running_installation(installed, tmp_path_factory.mktemp("programs")) as running:
        yield running
