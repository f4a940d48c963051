"""Fixtures for tests with a real Kubernetes API server.

Tests that use them, directly or indirectly, are marked `cluster`, or `node` if they need pods.
`pytest -m "not cluster and not node"` skips them all.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Never

import pytest

from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import NoNode, NotOurs
from e2e.cluster.install import install
from e2e.cluster.node import NodeCluster, OwnNodeCluster, running_node
from e2e.cluster.progress import Progress
from e2e.cluster.running import running

MAY_INSTALL = "KMS_ACME_E2E_INSTALL"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need a cluster or a node."""
    for item in items:
        asked = getattr(item, "fixturenames", ())
        if "node_cluster" in asked:
            item.add_marker(pytest.mark.node)
        elif "clusters" in asked:
            item.add_marker(pytest.mark.cluster)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """On the user's own cluster, skip tests that stop the API server or read its audit log."""
    try:
        yield
    except NotOurs as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def clusters(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Callable[..., AbstractContextManager[Cluster]]:
    """Starts a separate cluster; with `kinds=True`, with our CRDs and RBAC rules.

    See e2e.cluster.sources for its source. The user's own cluster is always the same.
    """

    @contextmanager
    def started(*, kinds: bool = False) -> Iterator[Cluster]:
        folder = tmp_path_factory.mktemp("cluster", numbered=True)
        with running(folder, Progress(_Uncaptured(pytestconfig))) as cluster:
            if kinds:
                _install(cluster)
            yield cluster

    return started


@pytest.fixture(scope="session")
def cluster(clusters: Callable[..., AbstractContextManager[Cluster]]) -> Iterator[Cluster]:
    """A real Kubernetes cluster for the session."""
    with clusters() as started:
        yield started


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """The cluster with our CRDs and RBAC rules."""
    _install(cluster)
    return cluster


@pytest.fixture(scope="session")
def node_cluster(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[NodeCluster | OwnNodeCluster]:
    """A cluster with a node that runs pods, for the session (see e2e.cluster.node).

    If this machine cannot run a node, tests are skipped with a reason; in CI (CI=true), they fail.
    """
    with ExitStack() as stack:
        try:
            folder = tmp_path_factory.mktemp("node", numbered=True)
            yield stack.enter_context(running_node(folder, Progress(_Uncaptured(pytestconfig))))
        except NoNode as reason:
            unavailable(str(reason))


def unavailable(reason: str, env: Mapping[str, str] = os.environ) -> Never:
    """Skip a test that cannot run here, or fail it in CI, where skips go unnoticed."""
    if env.get("CI", "").lower() in {"true", "1"}:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A new namespace; its deletion afterwards is not awaited."""
    name = f"test-{secrets.token_hex(5)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def _install(cluster: Cluster) -> None:
    """Install the CRDs and RBAC rules; in the user's own cluster, only if KMS_ACME_E2E_INSTALL=yes."""
    if not cluster.is_ours and os.environ.get(MAY_INSTALL) != "yes":
        pytest.skip(f"installs custom resource definitions into your own cluster: set {MAY_INSTALL}=yes to allow it")
    install(cluster)


class _Uncaptured:
    """Standard error without pytest's capturing, to show the progress of builds."""

    def __init__(self, config: pytest.Config) -> None:
        self._capture = config.pluginmanager.getplugin("capturemanager")

    def write(self, text: str) -> int:
        with self._capture.global_and_fixture_disabled() if self._capture else nullcontext():
            written = sys.stderr.write(text)
            sys.stderr.flush()
            return written

    def flush(self) -> None:
        """Do nothing; write() flushes."""

    def isatty(self) -> bool:
        return sys.stderr.isatty()
