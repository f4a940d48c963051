"""What an order through cert-manager costs the API server, from newOrder to the deletion of the request."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from kms.issuers.protocol import Submission
from kms.resources.certmanager import CertificateRequest, CertificateRequestStatus, RequestCondition
from kms.resources.kinds import CERTIFICATE_CHAINS, CERTIFICATE_REQUESTS
from kms.resources.meta import key_of
from tests.support.domain import NAMESPACE, World, running_world
from tests.support.eventually import in_background, until
from tests.support.scripted_issuer import certified_as
from tests.support.watching import watching

PLURAL = CERTIFICATE_REQUESTS.plural


def requests_of(world: World) -> list[CertificateRequest]:
    names = [each.name for each in world.api.store.by_key if each.plural == PLURAL]
    found = [world.api.read(CERTIFICATE_REQUESTS, NAMESPACE, each) for each in names]
    return [each for each in found if each is not None]


async def sign(world: World) -> None:
    """cert-manager: approves and signs the first request."""
    await until(lambda: requests_of(world))
    (request,) = requests_of(world)
    asked = Submission(
        name=request.metadata.name,
        order=(NAMESPACE, ""),
        order_uid="",
        attempt=1,
        request=x509.load_pem_x509_csr(request.spec.request).public_bytes(Encoding.DER),
        usages=request.spec.usages or (),
        duration=timedelta(hours=720),
    )
    conditions = tuple(RequestCondition(type=each, status="True", reason="a") for each in ("Approved", "Ready"))
    status = CertificateRequestStatus(conditions=conditions, certificate=certified_as(asked).pem)
    world.api.put(CERTIFICATE_REQUESTS, replace(request, status=status))


@pytest.mark.requirement("X15", "X17", "X23", "X25")
async def test_an_order_through_cert_manager_takes_six_writes_and_no_read() -> None:
    async with running_world(World.install_external) as world, watching(world):
        await world.services.external.issuers.look()
        await until(lambda: "watch certificaterequests" in world.calls())
        account = await world.account()
        before = len(world.api.requests)
        async with in_background(sign(world)):
            order = await world.finalized(account, await world.proven(account))
            key = key_of(order)
            await until(lambda: not world.services.issuance.is_working_at(key))
        assert world.stored(order).status.state == "valid"
        once = f"create {CERTIFICATE_CHAINS.plural}"  # for all certificates of the CA
        assert [each for each in world.calls(before) if each != once] == [
            "create acmeorders",
            "update acmeorders",
            "update acmeorders",
            f"create {PLURAL}",
            "update acmeorders",
            f"delete {PLURAL}",
        ]
        assert requests_of(world) == []


@pytest.mark.requirement("X50")
async def test_without_an_external_ca_nothing_of_the_kind_runs() -> None:
    async with running_world() as world, watching(world):
        await world.services.external.issuers.look()
        account = await world.account()
        await world.finalized(account, await world.proven(account))
        assert {each.plural for each in world.api.requests} <= {
            "acmeaccounts",
            "acmeorders",
            "certificatechains",
            "revocationrecords",
        }
        assert len(world.services.external.issuers) == 0
        assert [each.watched for each in world.services.external.requests] == [(), ()]
