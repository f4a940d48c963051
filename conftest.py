"""Fixtures for tests/ and e2e/."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer

from e2e.chart.helm import Helm
from e2e.cluster import Cluster
from e2e.cluster.node import NodeCluster
from tests.support import groups
from tests.support.groups import GroupScheduling
from tests.support.installation import Installation
from tests.support.installation import installation as running_installation
from tests.support.release import Release
from tests.support.release import installed as installed_release

pytest_plugins = ["e2e.chart.fixtures", "e2e.cluster.fixtures", "tests.support.openbao"]

# The duration of an example depends on the machine, so it never fails a property.
settings.register_profile("properties", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("properties")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort tests by group."""
    groups.arrange(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """Hand whole groups to the workers."""
    return GroupScheduling(config, log)


@pytest.fixture(scope="session")
def installation(
    clusters: Callable[..., AbstractContextManager[Cluster]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The operator and a server, both ready, for the whole session.

    They have their own cluster, so that they do not disturb tests of the CRDs and of the operator. A test that stops,
    kills or adds programs must restore the installation: ready, with one server.
    """
    with (
        clusters(kinds=True) as cluster,
        running_installation(cluster, tmp_path_factory.mktemp("programs")) as running,
    ):
        yield running


@pytest.fixture
def team(installation: Installation) -> Iterator[str]:
    """A namespace on the cluster of the installation; its deletion afterwards is not awaited."""
    name = f"team-{secrets.token_hex(5)}"
    installation.cluster.kubectl("create", "namespace", name)
    yield name
    installation.cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="session")
def release(node_cluster: NodeCluster, helm: Helm) -> Iterator[Release]:
    """The chart on the node for the whole session. A test must leave it ready and with its default values."""
    with installed_release(node_cluster, helm) as running:
        yield running
