"""CertificateRequests on a fake API server: what is made, what an answer means, when it is watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from kms.issuers.cert_manager import CertManagerIssuer, answer_of
from kms.issuers.protocol import Answer, Denied, Failed, Pending, Refused, Returned, Submission
from kms.issuers.request_objects import RequestObjects
from kms.resources.authorities import (
    AuthoritySpec,
    CertificateAuthority,
    CertManagerAuthority,
    ExternalAuthority,
    IssuerRef,
)
from kms.resources.certmanager import CertificateRequest, CertificateRequestStatus, RequestCondition
from kms.resources.kinds import CERTIFICATE_REQUESTS
from kms.resources.meta import ObjectMeta
from tests.support import pki
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.eventually import until

PLURAL = CERTIFICATE_REQUESTS.plural
CSR = pki.csr("www.example.com")
ASKED = Submission(
    name="kms-abc",
    order=("pki", "order-1"),
    order_uid="uid-1",
    attempt=1,
    request=CSR,
    usages=("digital signature", "server auth"),
    duration=timedelta(hours=720),
)


@dataclass
class World:
    api: FakeApiServer
    requests: RequestObjects[CertificateRequest]
    issuer: CertManagerIssuer
    changed: list[str] = field(default_factory=list)

    def stored(self) -> CertificateRequest:
        found = self.api.read(CERTIFICATE_REQUESTS, "pki", ASKED.name)
        assert found is not None
        return found

    def says(self, *conditions: RequestCondition, certificate: bytes | None = None) -> None:
        status = CertificateRequestStatus(conditions=conditions, certificate=certificate)
        self.api.put(CERTIFICATE_REQUESTS, replace(self.stored(), status=status))

    def calls(self, since: int = 0) -> list[str]:
        return [each.verb for each in self.api.requests[since:] if each.plural == PLURAL]


def authority(**external: Any) -> CertificateAuthority:
    ref = IssuerRef(name="corporate", kind="ClusterIssuer")
    spec = ExternalAuthority(cert_manager=CertManagerAuthority(issuer_ref=ref), **external)
    return CertificateAuthority(
        metadata=ObjectMeta(namespace="pki", name="ca", uid="ca-uid"), spec=AuthoritySpec(external=spec)
    )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_api() as api:
        cluster = await api.cluster()
        changed: list[str] = []
        requests = RequestObjects(cluster, CERTIFICATE_REQUESTS, on_change=changed.append, refused=0.05)
        yield World(api, requests, CertManagerIssuer(authority(), requests, cluster), changed)
        await requests.close()


def condition(type_: str, status: Any = "True", reason: str = "x", message: str = "the CA's words") -> RequestCondition:
    return RequestCondition(type=type_, status=status, reason=reason, message=message)


@pytest.mark.requirement("X17", "X16", "X18", "X19")
async def test_the_request_is_that_of_the_order(world: World) -> None:
    await world.issuer.begin(ASKED)
    stored = world.stored()
    assert x509.load_pem_x509_csr(stored.spec.request).public_bytes(Encoding.DER) == CSR
    assert (stored.spec.duration, stored.spec.usages) == ("720h", ("digital signature", "server auth"))
    assert (stored.spec.issuer_ref.name, stored.spec.issuer_ref.kind) == ("corporate", "ClusterIssuer")
    assert stored.metadata.labels == {
        "app.kubernetes.io/managed-by": "kms-acme",
        "pki.kms.hanzo.ai/order-uid": "uid-1",
    }
    (owner,) = stored.metadata.owner_references
    assert (owner.kind, owner.name, owner.uid, owner.controller, owner.block_owner_deletion) == (
        "ACMEOrder",
        "order-1",
        "uid-1",
        True,
        False,
    )


@pytest.mark.requirement("X37")
@pytest.mark.parametrize(
    ("conditions", "answer"),
    [
        ([], Pending("WaitingForApproval", "")),
        ([condition("Ready", "Unknown", "Initializing")], Pending("WaitingForApproval", "")),
        ([condition("Approved")], Pending("WaitingForIssuer", "")),
        ([condition("Approved"), condition("Ready", "False", "Pending")], Pending("WaitingForIssuer", "")),
        ([condition("Approved"), condition("Ready", "False", "Failed")], Failed("the CA's words")),
        ([condition("Denied")], Denied("the CA's words")),
        ([condition("Ready", "False", "Denied")], Denied("the CA's words")),
        ([condition("InvalidRequest"), condition("Ready", "False", "Failed")], Refused("the CA's words")),
        ([condition("Ready", "True", "Issued")], Returned(b"PEM")),
        ([condition("Denied"), condition("Ready", "True", "Issued")], Denied("the CA's words")),
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


def test_a_request_that_is_ready_without_a_certificate_waits() -> None:
    request = CertificateRequest(
        metadata=ObjectMeta(name="a"),
        spec=replace(_spec(), usages=None),
        status=CertificateRequestStatus(conditions=(condition("Approved"), condition("Ready"))),
    )
    assert isinstance(answer_of(request), Pending)
    assert isinstance(answer_of(replace(request, status=CertificateRequestStatus(conditions=None))), Pending)


def _spec() -> Any:
    from kms.resources.certmanager import CertificateRequestSpec  # noqa: PLC0415 - beside its only use

    return CertificateRequestSpec(request=b"a", issuer_ref=IssuerRef(name="corporate"))


@pytest.mark.requirement("X37", "X38", "X49")
@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, "Refused"),
        (406, "Refused"),
        (413, "Refused"),
        (422, "Refused"),
        (403, "Forbidden"),
        (409, "IssuerNotReady"),
        (429, "IssuerNotReady"),
        (500, "IssuerNotReady"),
    ],
)
async def test_what_it_means_that_a_request_cannot_be_created(world: World, status: int, answer: str) -> None:
    world.api.fail_next("create", PLURAL, status, times=9)
    await world.issuer.begin(ASKED)
    found = await world.issuer.look(ASKED)
    assert answer == (found.reason if isinstance(found, Pending) else type(found).__name__)
    world.api.succeed()
    if isinstance(found, Pending):  # it is created as soon as that is possible
        await world.issuer.look(ASKED)
        assert world.stored().metadata.name == ASKED.name


@pytest.mark.requirement("X37")
@pytest.mark.parametrize(("webhook", "is_final"), [("webhook.cert-manager.io", True), ("policy.example.com", False)])
async def test_what_webhooks_deny_comes_as_403(world: World, webhook: str, is_final: bool) -> None:
    # As the real one says it of usages that differ.
    said = f'admission webhook "{webhook}" denied the request: spec.request: Invalid value: "a": encoded CSR error'
    world.api.fail_next("create", PLURAL, 403, message=said)
    await world.issuer.begin(ASKED)
    found = await world.issuer.look(ASKED)
    assert isinstance(found, Refused if is_final else Pending)


@pytest.mark.requirement("X37", "X49")
async def test_without_cert_manager_the_order_waits(world: World) -> None:
    world.api.unserved.add(PLURAL)
    await world.issuer.begin(ASKED)
    for _ in range(2):
        found = await world.issuer.look(ASKED)
        assert isinstance(found, Pending)
        assert found.reason == "IssuerNotReady"


@pytest.mark.requirement("X16")
async def test_the_same_request_of_another_replica_is_ours_and_any_other_is_not(world: World) -> None:
    await world.issuer.begin(ASKED)
    await world.issuer.begin(ASKED)
    assert isinstance(await world.issuer.look(ASKED), Pending)
    for foreign in (
        replace_submission(request=pki.csr("www.example.com")),
        replace_submission(duration=timedelta(hours=1)),
        replace_submission(order_uid="another"),
    ):
        await world.issuer.begin(foreign)
        assert isinstance(await world.issuer.look(foreign), Failed)
    stored = world.stored()
    ref = replace(stored.spec.issuer_ref, name="evil")
    world.api.put(CERTIFICATE_REQUESTS, replace(stored, spec=replace(stored.spec, issuer_ref=ref)))
    assert isinstance(await world.issuer.look(ASKED), Failed)


@pytest.mark.requirement("X16")
async def test_how_a_duration_is_written_makes_no_difference(world: World) -> None:
    await world.issuer.begin(ASKED)
    stored = world.stored()
    world.api.put(CERTIFICATE_REQUESTS, replace(stored, spec=replace(stored.spec, duration="720h0m0s")))
    assert isinstance(await world.issuer.look(ASKED), Pending)


def replace_submission(**changes: Any) -> Submission:
    import dataclasses  # noqa: PLC0415 - msgspec's replace has the name here

    return dataclasses.replace(ASKED, **changes)


@pytest.mark.requirement("X37", "X23")
async def test_a_request_that_was_deleted_is_made_again_after_a_live_read(world: World) -> None:
    world.requests.watch({"pki"})
    await until(lambda: world.api.watching == 1)
    await world.issuer.begin(ASKED)
    world.api.remove(CERTIFICATE_REQUESTS, "pki", ASKED.name)
    await until(lambda: world.changed.count(ASKED.name) >= 2)
    before = len(world.api.requests)
    await world.issuer.look(ASKED)
    assert world.calls(before) == ["get", "create"]
    assert world.stored().metadata.name == ASKED.name


@pytest.mark.requirement("X23")
async def test_a_watched_request_is_not_read(world: World) -> None:
    world.requests.watch({"pki"})
    await until(lambda: world.api.watching == 1)
    await world.issuer.begin(ASKED)
    before = len(world.api.requests)
    assert isinstance(await world.issuer.look(ASKED), Pending)
    world.changed.clear()
    world.says(condition("Approved"), condition("Ready"), certificate=b"PEM")
    await until(lambda: world.changed == [ASKED.name])
    assert await world.issuer.look(ASKED) == Returned(b"PEM")
    await world.issuer.forget(ASKED)
    assert world.calls(before) == ["delete"]


@pytest.mark.requirement("X23", "X50")
async def test_requests_are_watched_where_there_are_cas_and_nowhere_else(world: World) -> None:
    assert (world.requests.watched, world.api.watching) == ((), 0)
    world.requests.watch({"pki", "team"})
    await until(lambda: world.api.watching == 2)
    assert {each.namespace for each in world.api.requests} == {"pki", "team"}
    for namespaces in ({"pki"}, set[str]()):
        world.requests.watch(namespaces)
        assert world.requests.watched == tuple(namespaces)
        await until(lambda: watching(world) == len(namespaces))  # noqa: B023 - awaited before the next one


def watching(world: World) -> int:
    """The number of open watches; the server notices that one was closed when it writes to it."""
    world.api.send_bookmarks()
    return world.api.watching


@pytest.mark.requirement("X23", "X49")
@pytest.mark.parametrize("status", [403, 404])
async def test_a_watch_that_is_refused_is_tried_again_slowly(world: World, status: int) -> None:
    if status == 404:
        world.api.unserved.add(PLURAL)
    world.api.fail_next("list", PLURAL, status, times=99)
    world.requests.watch({"pki"})
    await until(lambda: len(world.calls()) >= 3)
    assert len(world.calls()) < 30  # twenty a second are allowed here, one a minute otherwise
    await world.issuer.begin(ASKED)
    world.api.unserved.clear()
    world.api.succeed()
    await until(lambda: world.api.watching == 1)


@pytest.mark.requirement("X25")
async def test_another_request_of_that_name_is_not_deleted(world: World) -> None:
    await world.issuer.begin(ASKED)
    old = world.stored()
    world.api.remove(CERTIFICATE_REQUESTS, "pki", ASKED.name)
    await world.issuer.begin(ASKED)
    await world.requests.delete(old.metadata)
    assert world.stored().metadata.uid != old.metadata.uid
    world.api.fail_next("delete", PLURAL, 403)
    await world.issuer.forget(ASKED)  # logged; the sweep tries again
    await world.issuer.forget(ASKED)
    assert world.api.read(CERTIFICATE_REQUESTS, "pki", ASKED.name) is None


@pytest.mark.requirement("X41")
async def test_with_automatic_approval_a_request_of_ours_is_approved_and_no_other(world: World) -> None:
    cluster = await world.api.cluster()
    automatic = CertManagerIssuer(authority(approval="Automatic"), world.requests, cluster)
    await automatic.begin(ASKED)
    approved = world.stored().condition("Approved")
    assert approved is not None
    assert (approved.status, approved.reason) == ("True", "kms-acme")
    assert "pki/order-1" in (approved.message or "")
    before = len(world.api.requests)
    assert isinstance(await automatic.look(ASKED), Pending)
    assert world.calls(before) == ["get"]
    foreign = replace_submission(name="kms-other", order_uid="another")
    await automatic.begin(replace_submission(name="kms-other"))
    stored = world.api.read(CERTIFICATE_REQUESTS, "pki", "kms-other")
    assert stored is not None
    world.api.put(CERTIFICATE_REQUESTS, replace(stored, status=CertificateRequestStatus()))
    assert isinstance(await automatic.look(foreign), Failed)
    stored = world.api.read(CERTIFICATE_REQUESTS, "pki", "kms-other")
    assert stored is not None
    assert stored.condition("Approved") is None


@pytest.mark.requirement("X41")
async def test_without_the_right_to_approve_the_order_waits(world: World) -> None:
    cluster = await world.api.cluster()
    automatic = CertManagerIssuer(authority(approval="Automatic"), world.requests, cluster)
    world.api.fail_next("update", PLURAL, 403, times=9)
    await automatic.begin(ASKED)
    for _ in range(2):
        found = await automatic.look(ASKED)
        assert isinstance(found, Pending)
        assert (found.reason, "may not approve" in found.message) == ("WaitingForApproval", True)


@pytest.mark.requirement("X41")
async def test_by_default_nothing_is_approved(world: World) -> None:
    await world.issuer.begin(ASKED)
    await world.issuer.look(ASKED)
    await asyncio.sleep(0)
    assert world.stored().condition("Approved") is None
    assert await world.issuer.revoke(b"") is False
