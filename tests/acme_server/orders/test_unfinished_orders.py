"""Orders whose server died while they were in processing."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.orders.recovery import UnfinishedOrders
from acme_server.state.index import Index
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ORDERS
from kms.resources.orders import ACMEOrder, OrderState
from tests.support.acmeorders import DIGEST, order
from tests.support.domain import NAMESPACE, World
from tests.support.eventually import until


@pytest.mark.requirement("SEC34")
async def test_an_order_that_nobody_looks_at_does_not_stay_in_processing(world: World, account: ACMEAccount) -> None:
    ready = await world.proven(account)
    world.remove_authority_key()
    world.clock.ahead = timedelta(hours=1)  # ready for so long that the request is written down first
    processing = await world.finalized(account, ready)
    assert processing.status.state == "processing"
    unfinished_orders = UnfinishedOrders(index := Index[ACMEOrder](), patience=0.1, every=0.02)
    index.update(world.stored(processing), False)
    task = asyncio.create_task(unfinished_orders.run(world.services.orders.finish))
    await asyncio.sleep(0.2)
    assert world.stored(processing).status.state == "processing", "the issuer is not ready yet"
    world.install_authority()
    await until(lambda: world.stored(processing).status.state == "valid")
    task.cancel()


@pytest.mark.requirement("SEC34")
async def test_only_what_stays_in_processing_is_looked_at() -> None:
    asked: list[str] = []

    async def finish(key: tuple[str, str]) -> None:
        asked.append(key[1])

    unfinished_orders = UnfinishedOrders(index := Index[ACMEOrder](), patience=0.05, every=0.01)
    begun = order()
    begun = replace(begun, status=replace(begun.status, state="processing", csr_digest=DIGEST))

    def update(name: str, version: int, *, state: OrderState = "processing", deleted: bool = False) -> None:
        metadata = replace(begun.metadata, name=name, resource_version=str(version))
        index.update(replace(begun, metadata=metadata, status=replace(begun.status, state=state)), deleted)

    for name in ("left", "finished", "gone"):
        update(name, 1)
    update("finished", 2, state="invalid")
    update("gone", 2, deleted=True)
    task = asyncio.create_task(unfinished_orders.run(finish))
    await until(lambda: "left" in asked)
    assert set(asked) == {"left"}
    task.cancel()


@pytest.mark.requirement("SEC34")
async def test_an_order_that_cannot_be_finished_now_is_tried_again(world: World, account: ACMEAccount) -> None:
    one = await world.order(account)
    world.api.fail_next("get", ORDERS.plural, 503, times=9)
    await world.services.orders.finish((NAMESPACE, one.metadata.name))
    await world.services.orders.finish((NAMESPACE, "gone"))
