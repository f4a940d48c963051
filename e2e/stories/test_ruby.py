"""A developer uses acme-client, the ACME library for Ruby, as Debian ships it."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.stories.clients import Said, key_in, names_in, run, succeeded
from e2e.stories.story import CLIENT_ADDRESS, Story
from e2e.support import tools

pytestmark = [pytest.mark.clients, pytest.mark.usefixtures("without_binding")]
PROGRAM = Path(__file__).parent / "programs" / "certificate.rb"


def obtain(story: Story, folder: Path, *names: str) -> Said:
    roots = folder / "ca.crt"
    roots.write_text(story.enrollment.authority)
    return run(
        (
            *(tools.required(tools.RUBY), PROGRAM, story.enrollment.directory_url, roots),
            *(CLIENT_ADDRESS, str(story.http01_port), *names),
        ),
        folder=folder,
        environment={"RUBYOPT": "-W0"},
    )


def test_a_certificate_for_a_request_with_version_3(story: Story, tmp_path: Path) -> None:
    names = [story.name(label) for label in ("ruby", "other-ruby")]
    chain = tmp_path / "chain.pem"
    chain.write_text(succeeded(obtain(story, tmp_path, *names)).output)
    assert names_in(chain) == set(names)
    assert key_in(chain) == "RSA-2048"


def test_a_name_that_the_policy_does_not_allow_is_an_exception_of_the_library(story: Story, tmp_path: Path) -> None:
    said = obtain(story, tmp_path, "www.example.org")
    assert said.code == 1
    assert "Acme::Client::Error::RejectedIdentifier" in said.words
    assert "spec.dnsNames.allowed" in said.words
