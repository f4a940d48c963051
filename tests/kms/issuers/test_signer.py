"""CertificateSigningRequests on a fake API server: what is made, what an answer means, and what the cleaner does."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from kms.issuers.protocol import Answer, Denied, Failed, Pending, Refused, Returned, Submission
from kms.issuers.request_objects import ORDER, ORDER_UID, RequestObjects, order_of
from kms.issuers.signer import SignerIssuer
from kms.resources.authorities import AuthoritySpec, CertificateAuthority, ExternalAuthority, SignerAuthority
from kms.resources.certmanager import RequestCondition
from kms.resources.kinds import SIGNING_REQUESTS
from kms.resources.meta import ObjectMeta
from kms.resources.secret_names import MANAGED_BY, MANAGER
from kms.resources.signing_requests import CertificateSigningRequest, SigningRequestStatus
from tests.support import pki
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.eventually import until

PLURAL = SIGNING_REQUESTS.plural
CSR = pki.csr("www.example.com")
ASKED = Submission(
    name="kms-abc",
    order=("pki", "order-1"),
    order_uid="uid-1",
    attempt=1,
    request=CSR,
    usages=("digital signature", "server auth"),
    duration=timedelta(hours=1),
)


@dataclass
class World:
    api: FakeApiServer
    requests: RequestObjects[CertificateSigningRequest]
    issuer: SignerIssuer
    automatic: SignerIssuer

    def stored(self) -> CertificateSigningRequest:
        found = self.api.read(SIGNING_REQUESTS, "", ASKED.name)
        assert found is not None
        return found

    def says(self, *conditions: RequestCondition, certificate: bytes | None = None) -> None:
        status = SigningRequestStatus(conditions=conditions, certificate=certificate)
        self.api.put(SIGNING_REQUESTS, replace(self.stored(), status=status))


def authority(**external: Any) -> CertificateAuthority:
    spec = ExternalAuthority(signer=SignerAuthority(name="example.com/web"), **external)
    return CertificateAuthority(
        metadata=ObjectMeta(namespace="pki", name="ca", uid="ca-uid"), spec=AuthoritySpec(external=spec)
    )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_api() as api:
        cluster = await api.cluster()
        requests = RequestObjects(cluster, SIGNING_REQUESTS, on_change=lambda _: None)
        issuer, automatic = (
            SignerIssuer(authority(approval=each), requests, cluster) for each in ("Wait", "Automatic")
        )
        yield World(api, requests, issuer, automatic)
        await requests.close()


def condition(type_: str, reason: str = "x") -> RequestCondition:
    return RequestCondition(type=type_, status="True", reason=reason, message="the CA's words")


@pytest.mark.requirement("X17", "X16", "X18")
async def test_the_request_says_which_order_it_is_for(world: World) -> None:
    await world.issuer.begin(ASKED)
    stored = world.stored()
    assert x509.load_pem_x509_csr(stored.spec.request).public_bytes(Encoding.DER) == CSR
    assert (stored.spec.signer_name, stored.spec.expiration_seconds) == ("example.com/web", 3600)
    assert stored.spec.usages == ("digital signature", "server auth")
    assert (stored.metadata.annotations[ORDER], order_of(stored.metadata)) == ("pki/order-1", ("pki", "order-1"))
    assert (stored.metadata.namespace, stored.metadata.owner_references) == ("", ())


@pytest.mark.requirement("X37")
@pytest.mark.parametrize(
    ("conditions", "answer"),
    [
        ([], Pending("WaitingForApproval", "")),
        ([condition("Approved")], Pending("WaitingForIssuer", "")),
        ([condition("Denied")], Denied("the CA's words")),
        ([condition("Approved"), condition("Failed")], Failed("the CA's words", is_final=True)),
        ([condition("Approved"), condition("Failed", "SignerValidationFailure")], Refused("the CA's words")),
        ([condition("Approved")], Returned(b"PEM")),
    ],
)
async def test_what_conditions_mean(world: World, conditions: list[RequestCondition], answer: Answer) -> None:
    await world.issuer.begin(ASKED)
    world.says(*conditions, certificate=b"PEM" if isinstance(answer, Returned) else None)
    found = await world.issuer.look(ASKED)
    if isinstance(answer, Pending):
        assert isinstance(found, Pending)
        assert found.reason == answer.reason
        return
    assert found == answer


@pytest.mark.requirement("X37")
async def test_a_request_that_the_cleaner_has_deleted_is_made_again(world: World) -> None:
    world.requests.watch({"pki"})
    await until(lambda: world.api.watching == 1)
    await world.issuer.begin(ASKED)
    old = world.stored().metadata.uid
    world.api.remove(SIGNING_REQUESTS, "", ASKED.name)
    await until(lambda: not list(world.requests.values()))
    assert isinstance(await world.issuer.look(ASKED), Pending)
    assert world.stored().metadata.uid != old
    await world.issuer.forget(ASKED)
    assert world.api.read(SIGNING_REQUESTS, "", ASKED.name) is None


@pytest.mark.requirement("X16")
async def test_any_other_request_of_that_name_is_not_ours(world: World) -> None:
    await world.issuer.begin(ASKED)
    for changes in ({"request": pki.csr("www.example.com")}, {"duration": timedelta(hours=2)}, {"order_uid": "b"}):
        foreign = dataclasses.replace(ASKED, **changes)
        await world.issuer.begin(foreign)
        assert isinstance(await world.issuer.look(foreign), Failed)


@pytest.mark.requirement("X18")
async def test_less_than_ten_minutes_are_not_asked_for(world: World) -> None:
    short = dataclasses.replace(ASKED, duration=timedelta(seconds=599))
    await world.issuer.begin(short)
    assert await world.issuer.look(short) == Failed(
        "A signer gives no certificate for less than 10 minutes.", is_final=True
    )
    assert world.api.writes == []


@pytest.mark.requirement("X41")
async def test_approvals_go_to_the_subresource_that_is_for_them(world: World) -> None:
    await world.issuer.begin(ASKED)
    await world.issuer.look(ASKED)
    assert world.stored().condition("Approved") is None
    await world.automatic.look(ASKED)
    approved = world.stored().condition("Approved")
    assert approved is not None
    assert (approved.reason, approved.message) == ("kms-acme", "Approved for ACMEOrder pki/order-1.")
    (written,) = (each for each in world.api.writes if each.verb == "update")
    assert written.subresource == "approval"
    before = len(world.api.writes)
    world.says(condition("Denied"))
    assert await world.automatic.look(ASKED) == Denied("the CA's words")
    assert len(world.api.writes) == before


@pytest.mark.requirement("X16", "X2")
@pytest.mark.parametrize("labels", [{}, {MANAGED_BY: MANAGER, ORDER_UID: "uid-of-another-order"}])
async def test_a_request_of_somebody_else_is_not_deleted(world: World, labels: dict[str, str]) -> None:
    """Whoever changes the status of an order must not delete with the server's rights, and names may be taken."""
    await world.issuer.begin(ASKED)
    stored = world.stored()
    foreign = replace(stored, metadata=replace(stored.metadata, labels=labels))
    world.api.put(SIGNING_REQUESTS, foreign)
    assert isinstance(await world.issuer.look(ASKED), Failed)
    await world.issuer.forget(ASKED)
    assert world.stored().metadata.labels == labels
