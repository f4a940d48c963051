from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.orders.request_sweep import RequestSweep
from kms.issuers.request_objects import ORDER, RequestObjects
from kms.resources.authorities import IssuerRef
from kms.resources.certmanager import CertificateRequest, CertificateRequestSpec
from kms.resources.kinds import CERTIFICATE_REQUESTS, ORDERS
from kms.resources.meta import ObjectMeta
from kms.resources.orders import ACMEOrder, Issuance
from kms.resources.secret_names import MANAGED_BY, MANAGER
from tests.support.acmeorders import certified, order
from tests.support.domain import World
from tests.support.eventually import until

NAMESPACE, NAME = "pki", "orderorderorderorderorderorder22"


@pytest.fixture
async def requests(world: World) -> AsyncIterator[RequestObjects[CertificateRequest]]:
    found = RequestObjects(world.cluster, CERTIFICATE_REQUESTS, on_change=lambda _: None)
    yield found
    await found.close()


def put(world: World, name: str, *, of: str | None = f"{NAMESPACE}/{NAME}") -> None:
    metadata = ObjectMeta(
        namespace=NAMESPACE,
        name=name,
        labels={MANAGED_BY: MANAGER},
        annotations={} if of is None else {ORDER: of},
    )
    spec = CertificateRequestSpec(request=b"a", issuer_ref=IssuerRef(name="corporate"))
    world.api.put(CERTIFICATE_REQUESTS, CertificateRequest(metadata=metadata, spec=spec))


def waiting(request: str) -> ACMEOrder:
    found = order()
    return replace(
        found, status=replace(found.status, state="processing", issuance=Issuance(attempt=2, request=request))
    )


def left(world: World) -> list[str]:
    return sorted(each.name for each in world.api.store.by_key if each.plural == CERTIFICATE_REQUESTS.plural)


@pytest.mark.requirement("X25", "X12")
async def test_requests_that_no_order_waits_for_are_deleted(
    world: World, requests: RequestObjects[CertificateRequest]
) -> None:
    world.api.put(ORDERS, waiting("kms-current"))
    ended = certified()
    world.api.put(ORDERS, replace(ended, metadata=replace(ended.metadata, name="ended")))
    put(world, "kms-current")
    put(world, "kms-earlier-attempt")
    put(world, "kms-of-nothing", of=f"{NAMESPACE}/gone")
    put(world, "kms-ended", of=f"{NAMESPACE}/ended")
    put(world, "somebody-elses", of=None)
    requests.watch({NAMESPACE})
    await until(lambda: len(list(requests.values())) == 5)
    sweep = RequestSweep([requests], orders=world.services.state.orders, clock=world.clock)
    assert await sweep.sweep() == 0  # an order may be about to be written
    world.clock.ahead = timedelta(minutes=2)
    world.api.fail_next("delete", CERTIFICATE_REQUESTS.plural, 403)
    assert await sweep.sweep() == 2
    await until(lambda: len(list(requests.values())) == 3)
    assert await sweep.sweep() == 1
    assert left(world) == ["kms-current", "somebody-elses"]


@pytest.mark.requirement("X25")
async def test_a_request_stays_while_its_order_cannot_be_read(
    world: World, requests: RequestObjects[CertificateRequest]
) -> None:
    put(world, "kms-of-nothing", of=f"{NAMESPACE}/gone")
    requests.watch({NAMESPACE})
    await until(lambda: len(list(requests.values())) == 1)
    world.clock.ahead = timedelta(minutes=2)
    world.api.fail_next("get", ORDERS.plural, 403)
    sweep = RequestSweep([requests], orders=world.services.state.orders, clock=world.clock)
    assert await sweep.sweep() == 0
    assert left(world) == ["kms-of-nothing"]
