"""What a client's looking at an order, or at one of its authorizations, leads to."""

from __future__ import annotations

import pytest

from tests.support.domain import running_world


@pytest.mark.parametrize("count", [2, 10])
async def test_looking_at_an_authorization_before_answering_it_stores_nothing(count: int) -> None:
    async with running_world() as world:
        order = await world.order(await world.account(), *(f"host-{number}.example.com" for number in range(count)))
        before = len(world.api.requests)
        for position in range(count):
            await world.services.orders.poll(order, position=position)
            await world.respond(order, position, "http-01")
        for position in range(count):
            order = await world.services.orders.poll(order, position=position)
        assert order.status.state == "ready"
        assert world.calls(before) == ["update acmeorders"]


async def test_looking_at_an_answered_authorization_does_not_wait_for_answers_to_the_others() -> None:
    async with running_world() as world:
        order = await world.order(await world.account(), "one.example.com", "two.example.com")
        await world.respond(order, 0, "http-01")
        seen = await world.services.orders.poll(order, position=0)
        assert [each.state for each in seen.status.authorizations] == ["valid", "pending"]


@pytest.mark.requirement("SEC56")
async def test_an_authorization_that_was_given_up_elsewhere_is_shown_so_also_once_its_order_has_ended() -> None:
    async with running_world() as world:
        account = await world.account()
        order = await world.finalized(account, await world.proven(account, "www.example.com"))
        assert order.status.state == "valid"
        other = world.another().services.orders
        assert [each.state for each in (await other.poll(order, position=0)).status.authorizations] == ["valid"]
        await world.services.orders.deactivate_authorization(order, 0)
        seen = await other.poll(order, position=0)
        assert [each.state for each in seen.status.authorizations] == ["deactivated"]
