"""A team's clients wait for a CA that takes twenty seconds: they get their certificates without a second order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from e2e.stories.caddy import Caddy
from e2e.stories.clients import Certbot, Lego, names_in, succeeded
from e2e.stories.story import SITE_ADDRESS, Credential, Story
from e2e.support import tools
from e2e.support.dns import Addresses
from e2e.support.enrollment import enrollment_of
from e2e.support.programs import RELEASE
from e2e.support.threads import in_thread
from tests.support.external_cas import signer_ca
from tests.support.installation import Installation
from tests.support.late_signer import SIGNER, late_signer

pytestmark = [pytest.mark.soak, pytest.mark.requirement("X22")]

LATE = 20.0
"""Seconds until the CA answers: more than finalize waits, and less than any of these clients."""


@pytest.fixture(scope="module")
def story(installation: Installation) -> Iterator[Story]:
    """The release namespace, whose CAs may be external, with a profile that requires no external account binding."""
    kubeconfig = str(installation.cluster.kubeconfig)
    with (
        in_thread(late_signer(kubeconfig, after=LATE), name="late signer"),
        signer_ca(installation, SIGNER, name="late"),
    ):
        yield Story(installation, RELEASE, enrollment_of(installation.cluster, RELEASE, "late"))


def is_issued_late(story: Story, name: str, began: float) -> None:
    """One order, which took as long as the CA, and no request left."""
    # The CA counts from the creation of the request, which the API server tells in whole seconds.
    assert time.monotonic() - began >= LATE - 1
    (order,) = story.orders(name)
    assert order["status"]["state"] == "valid"
    assert order["status"]["authority"] == {"name": "late", "type": "Signer"}
    assert not story.kubectl("get", "certificatesigningrequests", "--output=name").strip()


def test_certbot_waits(certbot: Certbot, story: Story) -> None:
    name, began = story.name("late-certbot"), time.monotonic()
    succeeded(certbot.certonly(name))
    assert names_in(certbot.file(name)) == {name}
    is_issued_late(story, name, began)


def test_lego_waits(lego: Lego, story: Story) -> None:
    name, began = story.name("late-lego"), time.monotonic()
    succeeded(lego.run("run", name))
    assert names_in(lego.file(name)) == {name}
    is_issued_late(story, name, began)


def test_caddy_waits(story: Story, tmp_path: Path) -> None:
    name, began = story.name("late-caddy", Addresses(SITE_ADDRESS)), time.monotonic()
    caddy = Caddy(
        tools.required(tools.CADDY),
        story,
        tmp_path / "caddy",
        Credential("", ""),
        names=(name,),
        issuer={"external_account": None},
    )
    with caddy.serving():
        served = caddy.certificate(name)
    names = served.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]
    is_issued_late(story, name, began)
