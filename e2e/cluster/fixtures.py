"""The fixtures that every test with a real Kubernetes API server stands on.

A test that asks for one of them, directly or not, is marked `cluster`, and `node` if it needs pods to run:
`pytest -m "not cluster and not node"` leaves them all out.
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
    """Mark what needs a cluster, and what needs a node."""
    for item in items:
        asked = getattr(item, "fixturenames", ())
        if "node_cluster" in asked:
            item.add_marker(pytest.mark.node)
        elif "clusters" in asked:
            item.add_marker(pytest.mark.cluster)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """On a cluster of somebody's own, skip what only one of ours can do (stop it, count its requests)."""
    try:
        yield
    except NotOurs as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def clusters(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Callable[..., AbstractContextManager[Cluster]]:
    """Starts a cluster for those who cannot share one; with `kinds=True`, ours and the RBAC rules are installed there.

    See e2e.cluster.sources for where it comes from; somebody's own is always the same one.
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
    """A real Kubernetes cluster, one for all tests of the session."""
    with clusters() as started:
        yield started


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """The cluster with our six kinds and the RBAC rules in it."""
    _install(cluster)
    return cluster


@pytest.fixture(scope="session")
def node_cluster(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[NodeCluster | OwnNodeCluster]:
    """A cluster with a node that runs pods, one for all tests of the session (see e2e.cluster.node).

    Where this machine cannot run one, tests are skipped and say why; in CI (CI=true) they fail.
    """
    with ExitStack() as stack:
        try:
            folder = tmp_path_factory.mktemp("node", numbered=True)
            yield stack.enter_context(running_node(folder, Progress(_Uncaptured(pytestconfig))))
        except NoNode as reason:
            unavailable(str(reason))


def unavailable(reason: str, env: Mapping[str, str] = os.environ) -> Never:
    """End a test that cannot be run here: skipped on a person's machine, failed in CI, where nobody reads of skips."""
    if env.get("CI", "").lower() in {"true", "1"}:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own, deleted afterwards (which is not waited for)."""
    name = f"test-{secrets.token_hex(5)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def _install(cluster: Cluster) -> None:
    """Install the kinds and the RBAC rules; in somebody's own cluster only if KMS_ACME_E2E_INSTALL=yes says so."""
    if not cluster.is_ours and os.environ.get(MAY_INSTALL) != "yes":
        pytest.skip(f"installs custom resource definitions into your own cluster: set {MAY_INSTALL}=yes to allow it")
    install(cluster)


class _Uncaptured:
    """Standard error past pytest's capturing, so that minutes of building are not minutes of silence."""

    def __init__(self, config: pytest.Config) -> None:
        self._capture = config.pluginmanager.getplugin("capturemanager")

    def write(self, text: str) -> int:
        with self._capture.global_and_fixture_disabled() if self._capture else nullcontext():
            written = sys.stderr.write(text)
            sys.stderr.flush()
            return written

    def flush(self) -> None:
        """write() has done it already."""

    def isatty(self) -> bool:
        return sys.stderr.isatty()
