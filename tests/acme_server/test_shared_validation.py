"""A tenant whose accounts are free, and whose hosts do not answer, through the whole server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.acme import EXTERNAL_URL, ClientKey
from tests.support.domain import NAMESPACE, World
from tests.support.eventually import until
from tests.support.server import Server, running_server

ACCOUNTS = 100


def add_quiet_tenant(world: World) -> None:
    """The profile `web` with its policy and CA, once more in the namespace `quiet`."""
    world.validator.gate = asyncio.Event()
    informers: tuple[Any, ...] = (world.profiles, world.policies, world.authorities)
    for informer in informers:
        for each in tuple(informer.values()):
            metadata = replace(each.metadata, namespace="quiet", uid=f"{each.metadata.uid}-quiet")
            informer.put(replace(each, metadata=metadata))


async def respond(server: Server, namespace: str, name: str) -> None:
    """Open an account, order a certificate for the name, and respond to its challenge."""
    key, base = ClientKey(), f"{EXTERNAL_URL}/acme/{namespace}/web"
    kid = (await server.post(f"{base}/new-account", {}, key=key, jwk=key.jwk)).location
    identifiers = [{"type": "dns", "value": name}]
    order = await server.post(f"{base}/new-order", {"identifiers": identifiers}, key=key, kid=kid)
    authorization = await server.post(order.json["authorizations"][0], key=key, kid=kid)
    answer = await server.post(authorization.json["challenges"][0]["url"], {}, key=key, kid=kid)
    assert answer.status == 200, answer.text


@pytest.mark.requirement("SEC75")
async def test_another_tenants_challenge_is_validated_at_once() -> None:
    async with running_server(add_quiet_tenant) as server:
        for number in range(ACCOUNTS):
            await respond(server, NAMESPACE, f"a{number}.example.com")
        await respond(server, "quiet", "quiet.example.com")
        asked = server.world.validator.asked
        await until(lambda: "quiet.example.com" in {name for name, _, _ in asked}, seconds=5)
        assert len(asked) < ACCOUNTS, "the hosts of the other tenant still do not answer, and some of it has to wait"
        assert server.world.validator.gate is not None
        server.world.validator.gate.set()
