"""External CAs in the whole operator: a look makes a CA and its profiles Ready; what belongs to a CA goes with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kms.pki.certificate import certificate_pem
from kms.resources.authorities import CertificateAuthority
from kms.resources.kinds import AUTHORITIES, PROFILES, SECRETS
from kms.resources.secret_names import signing_key_name
from kms_operator.observation import Observation
from tests.support import pki
from tests.support.eventually import in_background, until
from tests.support.openbao import OpenBao
from tests.support.operated import RELEASE, SETTINGS, authority, secret
from tests.support.world import World, world

ANCHOR = certificate_pem(pki.root().certificate)
VAULT = {
    "server": "https://openbao.example.com:8200",
    "path": "pki/sign/web",
    "auth": {"tokenSecretRef": {"name": "openbao-token", "key": "token"}},
}


class Issuer:
    """What looks find, and how many there were."""

    def __init__(self) -> None:
        self.found = Observation("True", "Observed", "works", credentials={"token": b"hvs.1"})
        self.looks = 0

    async def look(self, one: CertificateAuthority, last: Observation | None) -> Observation:  # noqa: ARG002
        self.looks += 1
        return self.found


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def running(issuer: Issuer) -> AsyncIterator[World]:
    allowed = replace(SETTINGS, external_authorities_from=("pki",))
    async with world(allowed, looks={"Vault": issuer.look}) as one:
        spec = {"vault": VAULT, "trustAnchors": [ANCHOR]}
        one.api.remove(AUTHORITIES, "pki", "issuing")
        one.api.put(AUTHORITIES, authority(external=spec))
        yield one


async def look_again(running: World, issuer: Issuer) -> None:
    """Let a minute pass, and wait for what the next look leads to."""
    before, running.now = issuer.looks, running.now + timedelta(minutes=1)
    running.controller.enqueue_all()
    await until(lambda: issuer.looks > before)
    await until(lambda: len(running.controller.queue) == 0)
    assert running.reason(AUTHORITIES, "issuing", "IssuerObserved") == issuer.found.reason


async def test_a_look_makes_the_ca_and_its_profiles_ready(running: World, issuer: Issuer) -> None:
    await running.tell()
    running.controller.enqueue_all()
    async with in_background(running.controller.run()):
        await until(lambda: running.reason(PROFILES) == "Ready")
        assert running.reason(AUTHORITIES, "issuing") == "Observed"
        assert issuer.looks == 1
        issuer.found = Observation("False", "Sealed", "is sealed")
        await look_again(running, issuer)
        assert running.reason(AUTHORITIES, "issuing") == "Observed", "issuers that blink stop nothing"
        await look_again(running, issuer)
        assert running.reason(AUTHORITIES, "issuing") == "Sealed"
        await until(lambda: running.reason(PROFILES) == "IssuerNotReady")


async def test_two_conditions_that_say_the_same_make_one_event(running: World, issuer: Issuer) -> None:
    issuer.found = Observation("False", "Sealed", "is sealed")
    await running.tell()
    running.controller.enqueue_all()
    async with in_background(running.controller.run()):
        await until(lambda: running.reason(AUTHORITIES, "issuing") == "Sealed")
        await until(lambda: len(running.controller.queue) == 0)
    events: list[Any] = [body for key, body in running.api.store.by_key.items() if key.plural == "events"]
    assert [each["reason"] for each in events].count("Sealed") == 1


@pytest.mark.requirement("X12")
async def test_credentials_go_with_the_ca(running: World) -> None:
    name = f"{RELEASE}/{signing_key_name('uid-pki-issuing')}"
    await running.tell()
    running.controller.enqueue_all()
    async with in_background(running.controller.run()):
        await until(lambda: name in running.secrets("ca-"))
        one: Any = running.api.read(AUTHORITIES, "pki", "issuing")
        running.api.remove(AUTHORITIES, "pki", "issuing")
        running.controller.handle_delete(AUTHORITIES, one)
        await until(lambda: not running.secrets("ca-"))


async def test_nothing_secret_is_in_status_and_events(running: World) -> None:
    await running.tell()
    running.controller.enqueue_all()
    async with in_background(running.controller.run()):
        await until(lambda: running.reason(PROFILES) == "Ready")
    texts = [str(body) for key, body in running.api.store.by_key.items() if key.plural != "secrets"]
    assert not [each for each in texts if "hvs" in each]


@pytest.mark.requirement("X52")
async def test_a_ca_below_one_of_openbao_is_issued(running: World, issuer: Issuer, openbao: OpenBao) -> None:
    root = openbao.root_ca()
    token = openbao.token(openbao.policy({f"{root}/root/sign-intermediate": ("update",)}))
    anchor = openbao.read(f"{root}/cert/ca")["certificate"].strip() + "\n"
    vault = {**VAULT, "server": openbao.url, "caBundle": openbao.ca_bundle, "path": f"{root}/sign/web"}
    issuer.found = Observation("True", "Observed", "works", chain=anchor, credentials={"token": token.encode()})
    running.now = datetime.now(UTC)
    running.api.put(SECRETS, secret("openbao-token", data={"token": token.encode()}))
    running.api.put(AUTHORITIES, authority(external={"vault": vault}))
    running.api.put(AUTHORITIES, authority("below", internal={"issuerRef": {"name": "issuing"}, "pathLength": 0}))
    await running.tell()
    running.controller.enqueue_all()
    async with in_background(running.controller.run()):
        await until(lambda: running.reason(AUTHORITIES, "below") == "Issued", seconds=20)
        await until(lambda: len(running.controller.queue) == 0)
    below = running.api.read(AUTHORITIES, "pki", "below")
    assert below is not None
    assert (below.status.type, (below.status.chain or "").endswith(anchor)) == ("Intermediate", True)
    assert openbao.certificates_of(root) == 1 + 1, "its own, and one"
    texts = [str(body) for key, body in running.api.store.by_key.items() if key.plural != "secrets"]
    assert not [each for each in texts if token in each]
