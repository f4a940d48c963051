"""cert-manager beside the chart, on one node for all tests of the folder; and a namespace for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from e2e.cluster.node import CertManager
from tests.support.certmanager import CERT_MANAGER, Team
from tests.support.release import Release


@pytest.fixture(scope="session")
def cert_manager(release: Release) -> CertManager:
    """Its controllers run. A test that gives them other options puts these back."""
    CERT_MANAGER.install(release.cluster)
    return CERT_MANAGER


@pytest.fixture
def team(release: Release, cert_manager: CertManager) -> Iterator[Team]:
    """A namespace that takes restricted pods only, deleted afterwards (which is not waited for)."""
    name = f"team-{secrets.token_hex(4)}"
    release.cluster.kubectl("create", "namespace", name)
    release.cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield Team(release=release, namespace=name)
    release.cluster.kubectl("delete", "namespace", name, "--wait=false")
