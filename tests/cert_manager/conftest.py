"""cert-manager beside the chart, on one node for all tests of the folder; and a namespace for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from e2e.cluster.node import CertManager
from tests.support.certmanager import CERT_MANAGER, Team
from tests.support.release import Release


@pytest.fixture(scope="session")
def cert_manager(release: Release) -> CertManager:
    """Its controllers run. A test that gives them other options puts these back."""
    wanted = replace(CERT_MANAGER, dns01_nameservers=(f"{release.cluster.machine_address}:53",))
    wanted.install(release.cluster)
    return wanted


@pytest.fixture
def team(release: Release, cert_manager: CertManager) -> Iterator[Team]:
    """A namespace of the test's own."""
    with _namespace(release) as name:
        yield Team(release=release, namespace=name)


@pytest.fixture
def other_team(release: Release, cert_manager: CertManager) -> Iterator[Team]:
    """Another one."""
    with _namespace(release) as name:
        yield Team(release=release, namespace=name)


@contextmanager
def _namespace(release: Release) -> Iterator[str]:
    """One that takes restricted pods only, deleted afterwards (which is not waited for)."""
    name = f"team-{secrets.token_hex(4)}"
    release.cluster.kubectl("create", "namespace", name)
    release.cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    release.cluster.kubectl("delete", "namespace", name, "--wait=false")
