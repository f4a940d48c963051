"""Two servers that know of each other, and clients of both; and chance that can be had again."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from e2e.cluster.cluster import Cluster
from e2e.load.client import Client
from e2e.load.exchange import Exchange
from tests.support.installation import Installation
from tests.support.operating import Kubectl


@pytest.fixture
def kubectl(installed: Cluster, namespace: str) -> Kubectl:
    """kubectl in the namespace of the test."""
    return Kubectl(installed, namespace)


@pytest.fixture(scope="module")
def servers(installation: Installation) -> Iterator[tuple[str, str]]:
    """The addresses of two servers that know of each other."""
    with installation.replicas(2) as (one, other):
        yield one.url, other.url


@pytest.fixture
def third(installation: Installation, servers: tuple[str, str]) -> Iterator[str]:
    """The address of a third server that knows both, and they it."""
    with installation.replicas(1) as (server,):
        yield server.url


@pytest.fixture
async def client(installation: Installation, servers: tuple[str, str], team: str) -> AsyncIterator[Client]:
    """A client with an account that sends every request to the other server than the one before."""
    async with installation.client(installation.open_profile(team), servers=servers) as client:
        yield client


@pytest.fixture
async def apart(
    installation: Installation, servers: tuple[str, str], team: str
) -> AsyncIterator[tuple[Client, Client]]:
    """Two clients with one account, each of which asks a server of its own."""
    enrollment = installation.open_profile(team)
    async with (
        installation.client(enrollment, servers=servers[:1]) as client,
        Exchange(enrollment.directory_url, tls=enrollment.tls, servers=servers[1:]) as elsewhere,
    ):
        yield client, Client(elsewhere, client.key, account_url=client.account_url)


@pytest.fixture
def chance() -> random.Random:
    """Chooses moments; with KMS_ACME_E2E_SEED the same ones again."""
    seed = os.environ.get("KMS_ACME_E2E_SEED") or secrets.token_hex(4)
    print(f"KMS_ACME_E2E_SEED={seed}")
    return random.Random(seed)  # noqa: S311 - it chooses moments
