"""Each story, which is a file, has a namespace, a profile and a credential of its own. The installation is shared."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import tools
from e2e.stories.clients import Certbot, Lego
from e2e.stories.story import Credential, Story
from tests.support.installation import Installation


@pytest.fixture(scope="module")
def story(installation: Installation) -> Iterator[Story]:
    """The namespace of the story, with a Ready profile that demands external account binding."""
    namespace = f"story-{secrets.token_hex(4)}"
    installation.cluster.kubectl("create", "namespace", namespace)
    yield Story(installation, namespace, installation.profile(namespace))
    installation.cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="module")
def credential(story: Story) -> Credential:
    """A credential for the profile of the story."""
    return story.credential()


@pytest.fixture
def certbot(story: Story, tmp_path: Path) -> Certbot:
    """A machine with certbot that knows nobody yet."""
    return Certbot(tools.required(tools.CERTBOT), story, tmp_path / "certbot")


@pytest.fixture
def lego(story: Story, tmp_path: Path) -> Lego:
    """A machine with lego that knows nobody yet."""
    return Lego(tools.required(tools.LEGO), story, tmp_path / "lego")
