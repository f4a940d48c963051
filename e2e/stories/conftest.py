"""Each story (a file) has its own namespace, profile and credential. All stories share the installation."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from e2e.load.client import Client
from e2e.load.exchange import Exchange
from e2e.load.keys import AccountKey, ExternalAccount
from e2e.load.solvers import CHALLENGES
from e2e.stories.caddy import Caddy
from e2e.stories.clients import Certbot, Lego
from e2e.stories.developer import Developer
from e2e.stories.story import Credential, Story
from e2e.support import tools
from e2e.support.hooks import serving
from tests.support.installation import ZONE, Installation


@pytest.fixture(scope="module")
def story(installation: Installation) -> Iterator[Story]:
    """The namespace of the story, with a Ready profile that requires external account binding."""
    namespace = f"story-{secrets.token_hex(4)}"
    installation.cluster.kubectl("create", "namespace", namespace)
    yield Story(installation, namespace, installation.profile(namespace))
    installation.cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="module")
def credential(story: Story) -> Credential:
    """A credential for the profile of the story."""
    return story.credential()


@pytest.fixture(scope="module")
def all_challenges(story: Story) -> None:
    """Offer all challenge types, and allow wildcards and loopback addresses."""
    story.policy(
        dnsNames={"allowed": [f"**.{ZONE}"], "wildcards": "Allow"},
        ipAddresses={"allowed": ["127.0.0.0/8", "::1/128"]},
    )
    story.profile(enrollment={"acme": {"challenges": list(CHALLENGES)}})


@pytest.fixture(scope="module")
def without_binding(story: Story) -> None:
    """Require no external account binding, for clients that do not know it."""
    story.profile(enrollment={"acme": {"externalAccountBinding": "Disabled"}})


@pytest.fixture(scope="module")
def hooks(installation: Installation) -> Iterator[str]:
    """The URL to publish challenge responses."""
    with serving(installation.zone, installation.answerer) as url:
        yield url


@pytest.fixture
def certbot(story: Story, hooks: str, tmp_path: Path) -> Certbot:
    """A machine with certbot, without accounts."""
    return Certbot(tools.required(tools.CERTBOT), story, tmp_path / "certbot", hooks)


@pytest.fixture
def certbot_1_21(story: Story, hooks: str, tmp_path: Path) -> Certbot:
    """A machine with certbot 1.21, without accounts."""
    return Certbot(tools.required(tools.CERTBOT_1_21), story, tmp_path / "certbot-1.21", hooks)


@pytest.fixture
def lego(story: Story, hooks: str, tmp_path: Path) -> Lego:
    """A machine with lego, without accounts."""
    return Lego(tools.required(tools.LEGO), story, tmp_path / "lego", hooks)


@pytest.fixture
def caddy(story: Story, credential: Credential, tmp_path: Path) -> Caddy:
    """A machine with Caddy, without sites."""
    return Caddy(tools.required(tools.CADDY), story, tmp_path / "caddy", credential)


@pytest.fixture
def developer(story: Story, tmp_path: Path) -> Iterator[Developer]:
    """A developer's machine, which only trusts the CA of the server."""
    trust = tmp_path / "ca.crt"
    trust.write_text(story.enrollment.authority)
    with closing(Developer(story, trust)) as developer:
        yield developer


@pytest.fixture
async def exchange(story: Story) -> AsyncIterator[Exchange]:
    """A raw exchange with the directory of the story's profile."""
    async with story.exchange() as exchange:
        yield exchange


@pytest.fixture
def external_account(credential: Credential) -> ExternalAccount:
    """The credential of the story, for bindings."""
    return ExternalAccount.parse(credential.kid, credential.secret)


@pytest.fixture
async def client(exchange: Exchange, external_account: ExternalAccount) -> Client:
    """A client with an account."""
    client = Client(exchange, AccountKey.generate())
    await client.register(external_account=external_account)
    return client
