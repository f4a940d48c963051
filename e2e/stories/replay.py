"""Helpers for tests that replay requests of clients one by one."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.load.client import Client, Order, http01_of
from e2e.load.exchange import Answer, Exchange
from e2e.load.keys import AccountKey
from e2e.stories.story import Story

HERE = "127.0.0.1"
"""The address of the answerer of http-01."""


async def new_account(exchange: Exchange, key: AccountKey, payload: dict[str, Any]) -> Answer:
    return await exchange.signed((await exchange.directory())["newAccount"], payload, key=key)


async def ready_order(client: Client, story: Story, *labels: str, **members: Any) -> Order:
    """A new order with valid authorizations; `members` are added to its payload."""
    order = await client.new_order([f"{label}.{story.namespace}.test" for label in labels], **members)
    for url in order.authorizations:
        challenge = http01_of(await client.authorization(url))
        story.installation.answerer.add(challenge["token"], client.key.thumbprint)
        await client.respond(challenge)
    for url in order.authorizations:
        await validated(client, url)
    order = await client.order(order.url)
    assert order.status == "ready"
    return order


async def order_of_address(client: Client, text: str) -> Order:
    """A new order for an IP address."""
    url = (await client.exchange.directory())["newOrder"]
    answer = await client.post("new-order", url, {"identifiers": [{"type": "ip", "value": text}]})
    return Order(str(answer.location), answer.json())


async def ready_address(client: Client, story: Story) -> Order:
    """An order for the address of the answerer that is ready."""
    order = await order_of_address(client, HERE)
    if order.status == "pending":
        challenge = http01_of(await client.authorization(order.authorizations[0]))
        story.installation.answerer.add(challenge["token"], client.key.thumbprint)
        await client.respond(challenge)
        await validated(client, order.authorizations[0])
    order = await client.order(order.url)
    assert order.status == "ready"
    return order


async def validated(client: Client, authorization: str) -> None:
    """Poll until the authorization is final; the server delays each answer."""
    for _ in range(20):
        if (await client.authorization(authorization))["status"] != "pending":
            return
    pytest.fail(f"{authorization} is still pending")


def names_of(order: Order) -> list[str]:
    return [each["value"] for each in order.body["identifiers"]]
