"""Orders whose spec no server has written: changed after the creation, or of a shape that newOrder does not create.

The API server admits them, since rules in its schema would be evaluated with each write of every order.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from msgspec.structs import replace

from acme_server.problems import ProblemType, Refused, Unavailable
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ORDERS
from kms.resources.meta import LocalRef
from kms.resources.orders import ACMEOrder, Identifier
from tests.support import pki
from tests.support.apiserver import spoil
from tests.support.domain import NAMESPACE, Key, World

pytestmark = pytest.mark.requirement("M58", "SEC58")

WWW, OTHER = "www.example.com", "other.example.com"
MOMENT = "2026-01-01T00:00:00Z"


def change(world: World, order: ACMEOrder, **spec: Any) -> ACMEOrder:
    """Change the spec as somebody with kubectl does; the watch has delivered it."""
    found = world.stored(order)
    changed = world.api.put(ORDERS, replace(found, spec=replace(found.spec, **spec)))
    world.services.state.orders.apply_event(changed, False)
    return changed


async def refusal(world: World, account: ACMEAccount, order: ACMEOrder, name: str) -> Refused:
    with pytest.raises(Refused) as refused:
        await world.finalized(account, order, pki.csr(name))
    assert world.stored(order).status.certificate is None
    return refused.value


@pytest.mark.parametrize("sole_writer", [True, False])
async def test_the_proven_order_of_another_account_cannot_be_taken_over(
    world: World, account: ACMEAccount, sole_writer: bool
) -> None:
    world.sole_writer = sole_writer
    mallory = await world.account(Key(thumbprint="m" * 43))
    order = await world.proven(account, WWW)
    stolen = change(world, order, account_ref=LocalRef(name=mallory.metadata.name))
    refused = await refusal(world, mallory, stolen, WWW)
    assert (refused.type, "spec was changed" in refused.detail) == (ProblemType.ORDER_NOT_READY, True)


async def test_a_proven_order_is_not_for_other_names(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account, WWW)
    changed = change(world, order, identifiers=(Identifier(type="dns", value=OTHER),))
    (own,) = changed.status.authorizations
    status = replace(changed.status, authorizations=(replace(own, identifier=changed.spec.identifiers[0]),))
    world.services.state.orders.apply_event(world.api.put(ORDERS, replace(changed, status=status)), False)
    assert (await refusal(world, account, changed, OTHER)).type == ProblemType.ORDER_NOT_READY


async def test_an_order_in_processing_ends_when_its_spec_is_changed(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account, WWW)
    csr = pki.csr(WWW)
    digest = hashlib.sha256(csr).hexdigest()
    found = world.stored(order)
    status = replace(found.status, state="processing", request=csr, csr_digest=digest, accepted=world.clock())
    world.services.state.orders.apply_event(world.api.put(ORDERS, replace(found, status=status)), False)
    ended = await world.services.orders.refresh(change(world, order, names="anything"))
    assert (ended.status.state, ended.status.error and ended.status.error.type) == ("invalid", "orderNotReady")
    assert ended.status.certificate is None


@pytest.mark.parametrize("sole_writer", [True, False])
async def test_what_a_changed_order_has_proven_is_proven_again(
    world: World, account: ACMEAccount, sole_writer: bool
) -> None:
    world.sole_writer = sole_writer
    first = await world.proven(account, WWW)
    relying = await world.order(account, WWW)
    assert relying.status.state == "ready", "it reuses the authorization"
    change(world, first, names="anything")
    assert (await refusal(world, account, relying, WWW)).type == ProblemType.ORDER_NOT_READY
    assert (await world.order(account, WWW)).status.state == "pending"


PROOF = {"authorization": 0, "validated": MOMENT, "expires": MOMENT}
SHAPES: dict[str, Any] = {
    "tokens": [{"authorization": 1, "type": "http-01", "token": "t" * 32}],
    "authorized": [{**PROOF, "authorization": 1}],
    "authorized.order": [{**PROOF, "order": "o"}],
    "authorized.position": [{**PROOF, "position": 0}],
    "contentsRef": {"name": "web"},
    "preauthorization": True,
}


@pytest.mark.parametrize("field", SHAPES)
async def test_an_order_of_a_shape_that_no_server_creates_counts_as_absent(
    world: World, account: ACMEAccount, field: str
) -> None:
    names = (WWW, OTHER) if field == "preauthorization" else (WWW,)
    order = await world.order(account, *names)
    spoil(world.api, ORDERS, order.metadata.name, f"spec.{field.partition('.')[0]}", SHAPES[field], namespace=NAMESPACE)
    world.services.state.orders.clear()
    with pytest.raises(Unavailable, match="cannot be read"):
        await world.services.orders.get(world.caller(account), order.metadata.name)
