"""A developer uses the ACME client of step-ca, which sends null as contact and Go's zero time as validity."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from e2e.stories.clients import Said, names_in, run, succeeded
from e2e.stories.story import CLIENT_ADDRESS, Story
from e2e.support import tools

pytestmark = pytest.mark.usefixtures("without_binding")


def obtain(story: Story, folder: Path, *names: str) -> Said:
    roots = folder / "ca.crt"
    roots.write_text(story.enrollment.authority)
    address = f"{CLIENT_ADDRESS}:{story.http01_port}"
    return run(
        (tools.required(tools.STEP), story.enrollment.directory_url, roots, address, *names),
        folder=folder,
        environment={},
    )


def test_a_certificate_has_the_lifetime_of_the_profile_since_the_zero_time_asks_for_none(
    story: Story, tmp_path: Path
) -> None:
    names = [story.name(label) for label in ("step", "other-step")]
    chain = tmp_path / "chain.pem"
    chain.write_text(succeeded(obtain(story, tmp_path, *names)).output)
    assert names_in(chain) == set(names)
    leaf = x509.load_pem_x509_certificate(chain.read_bytes())
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc > timedelta(days=1)
    (order,) = story.orders(*names)
    assert order["spec"].keys().isdisjoint({"notBefore", "notAfter"})


def test_a_name_that_the_policy_does_not_allow_is_refused_with_name_and_rule(story: Story, tmp_path: Path) -> None:
    said = obtain(story, tmp_path, "www.example.org")
    assert said.code == 1
    assert "new order: " in said.words
    assert "spec.dnsNames.allowed" in said.words
