"""What one tenant may use of what all share: orders, accounts and their bytes, over a real listener."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from acme_server.urls import URLs
from kms.resources.kinds import ORDERS
from kms.resources.profiles import ClientNamespaces
from tests.support.acme import EXTERNAL_URL, ClientKey, b64, binding, signed
from tests.support.domain import NAMESPACE, World
from tests.support.server import Answer, Server, running_server

OTHER = "other"
LONG = ".".join("l" * 60 for _ in range(2))
"""With a label before it and the domain behind it about as long as names of an order can be on average."""


def add_tenant(world: World) -> None:
    """Copy the profile with its policy and CA into another namespace."""
    for authority in tuple(world.authorities.values()):
        world.authorities.put(replace(authority, metadata=replace(authority.metadata, namespace=OTHER)))
    for policy in tuple(world.policies.values()):
        world.policies.put(replace(policy, metadata=replace(policy.metadata, namespace=OTHER)))
    for profile in tuple(world.profiles.values()):
        world.profiles.put(replace(profile, metadata=replace(profile.metadata, namespace=OTHER)))


class Tenant(Server):
    """A client of the profile in the other namespace."""

    @property
    def base(self) -> str:
        return URLs(EXTERNAL_URL).profile(OTHER, "web")


def tenant(server: Server) -> Tenant:
    parts = {each.name: getattr(server, each.name) for each in server.__dataclass_fields__.values()}
    return Tenant(**parts | {"key": ClientKey(), "kid": None})


async def orders_until_refused(server: Server, *names: str, most: int) -> tuple[int, Answer]:
    """How many orders the server takes, and its last answer."""
    for number in range(most):
        answer = await server.order(*names)
        if answer.status != 201:
            return number, answer
    return most, answer


def stored(world: World, namespace: str = NAMESPACE) -> int:
    """The octets of all orders in a namespace, without what only a real API server adds."""
    keys = [each for each in world.api.store.by_key if each.plural == ORDERS.plural and each.namespace == namespace]
    return sum(len(str(world.api.store.by_key[each])) for each in keys)


@pytest.mark.requirement("SEC72")
async def test_an_account_that_orders_as_many_and_as_long_names_as_it_can_is_stopped_by_their_bytes() -> None:
    async with running_server() as server:
        await server.register()
        server.world.services.state.open_orders.maximum_octets = 2**20
        names = [f"a{number:02}.{'l' * 60}.example.com" for number in range(100)]
        count, refused = await orders_until_refused(server, *names, most=60)
        assert (refused.status, refused.problem["type"]) == (503, "rateLimited")  # before: 60 orders
        assert refused.headers["Retry-After"] == "30"
        assert 5 < count < 40
        assert stored(server.world) < 2**20


@pytest.mark.requirement("SEC72", "SEC36")
async def test_the_names_of_an_order_are_limited_together() -> None:
    async with running_server() as server:
        await server.register()
        longest = [f"a{number:02}.{LONG}.{LONG}"[:240] + ".example.com" for number in range(100)]
        refused = await server.order(*longest)
        assert (refused.status, refused.problem["type"]) == (400, "malformed")  # before: 201, and 120 kB of etcd
        assert "characters together, and an order may have 8192" in refused.problem["detail"]
        assert (await server.order(*longest[:32])).status == 201


@pytest.mark.requirement("SEC75")
async def test_one_tenant_at_his_limit_leaves_orders_to_another() -> None:
    async with running_server(add_tenant) as server:
        greedy, modest = server, tenant(server)
        quota = server.world.services.state.order_quota
        quota.maximum = 12
        await greedy.register()
        await modest.register()
        count, refused = await orders_until_refused(greedy, most=20)
        assert (count, refused.status, refused.problem["type"]) == (3, 503, "rateLimited")  # before: 12
        assert "share" in refused.problem["detail"]
        before = len(server.world.api.requests)
        for _ in range(20):
            assert (await greedy.order()).status == 503
        assert server.world.calls(before) == []
        order = await modest.ready()
        assert (await modest.finalize(order)).json["status"] == "valid"  # before: 503, for as long as the others last


@pytest.mark.requirement("SEC75")
async def test_one_tenant_at_his_limit_leaves_accounts_to_another() -> None:
    async with running_server(add_tenant) as server:
        server.world.services.state.account_quota.maximum = 10
        answers = [await server.register(ClientKey()) for _ in range(8)]
        assert [each.status for each in answers] == [201] * 5 + [503] * 3  # before: ten, and nobody after that
        assert answers[-1].problem["type"] == "rateLimited"
        assert (await tenant(server).register(ClientKey())).status == 201


def require_credentials(world: World) -> None:
    """Share the profile with two namespaces, each with a credential that opens any number of accounts."""
    everywhere = ClientNamespaces(from_="All")
    world.configure(external_account_binding="Required", allowed_namespaces=everywhere)
    world.put_credential("greedy", namespace="team-a", name="greedy")
    world.put_credential("modest", namespace="team-b", name="modest")


async def bound(server: Server, key_id: str) -> Server:
    """A client with an account of its own under that key identifier."""
    parts = {each.name: getattr(server, each.name) for each in server.__dataclass_fields__.values()}
    client = Server(**parts | {"key": ClientKey(), "kid": None})
    members = binding(client.key, url=f"{client.base}/new-account", mac_key=bytes(range(32)), kid=key_id)
    answer = await client.register(externalAccountBinding=members)
    if answer.status != 201:
        assert (answer.status, answer.problem["type"]) == (503, "rateLimited")
        assert "Clients of namespace team-a have reached" in answer.problem["detail"]
    return client


@pytest.mark.requirement("SEC75", "SEC78")
async def test_a_namespace_with_any_number_of_accounts_leaves_orders_to_others_of_the_same_profile() -> None:
    async with running_server() as server:
        require_credentials(server.world)
        modest = await bound(server, "modest")
        server.world.services.state.order_quota.maximum = 32
        taken = 0
        for _ in range(12):
            count, refused = await orders_until_refused(await bound(server, "greedy"), most=40)
            taken += count
        assert (taken, refused.status) == (8, 503)  # before: 16, and none for anybody else
        assert "Clients of namespace team-a have reached their share of" in refused.problem["detail"]
        assert (await modest.finalize(await modest.ready())).json["status"] == "valid"


@pytest.mark.requirement("SEC75", "SEC78")
async def test_a_namespace_with_one_credential_leaves_accounts_to_others_of_the_same_profile() -> None:
    async with running_server() as server:
        require_credentials(server.world)
        server.world.services.state.account_quota.maximum = 32
        opened = [await bound(server, "greedy") for _ in range(20)]
        assert sum(each.kid is not None for each in opened) == 8  # before: 16, and none for anybody else
        assert (await bound(server, "modest")).kid is not None


@pytest.mark.requirement("SEC73", "SEC75")
async def test_key_changes_of_a_namespace_count_for_its_share_too() -> None:
    async with running_server() as server:
        require_credentials(server.world)
        server.world.services.state.account_quota.maximum = 32
        client = await bound(server, "greedy")
        keys = [client.key, *(ClientKey() for _ in range(8))]
        changed = [await change_key(client, old, new) for old, new in pairwise(keys)]
        # Before: as many as the whole namespace had room for, and none for anybody else.
        assert [each.status for each in changed] == [200] * 7 + [503]
        assert (await bound(server, "modest")).kid is not None


async def change_key(client: Server, old: ClientKey, new: ClientKey) -> Answer:
    url = f"{client.base}/key-change"
    members = json.dumps({"account": client.kid, "oldKey": old.jwk}).encode()
    return await client.post(url, signed(new, members, jwk=new.jwk, url=url), key=old)


@pytest.mark.requirement("SEC75")
async def test_one_tenant_at_his_limit_leaves_bytes_to_another() -> None:
    async with running_server(add_tenant) as server:
        greedy, modest = server, tenant(server)
        server.world.services.state.order_quota.maximum_octets = 100_000
        for each in (greedy, modest):
            await each.register()
        names = [f"host-{number}.example.com" for number in range(20)]
        count, refused = await orders_until_refused(greedy, *names, most=60)
        assert (refused.status, refused.problem["type"]) == (503, "rateLimited")
        assert 0 < count < 10
        assert (await modest.order()).status == 201


@pytest.mark.requirement("SEC72", "SEC75")
async def test_one_tenant_who_writes_too_much_waits_and_another_does_not() -> None:
    async with running_server(add_tenant) as server:
        greedy, modest = server, tenant(server)
        for each in (greedy, modest):
            await each.register()
        server.world.services.state.order_index.mark_complete()
        server.world.services.state.write_rate.maximum = 60_000
        order = await greedy.ready()
        certificate = await greedy.certificate(await greedy.finalize(await greedy.ready("other.example.com")))
        _, refused = await orders_until_refused(greedy, most=40)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "60")  # before: any number
        assert (await greedy.finalize(order)).status == 503
        assert (await modest.finalize(await modest.ready())).json["status"] == "valid"
        der = certificate.public_bytes(Encoding.DER)
        assert (await greedy.post(f"{greedy.base}/revoke-cert", {"certificate": b64(der)})).status == 200
        server.world.clock.ahead += timedelta(minutes=11)
        assert (await greedy.finalize(order)).json["status"] == "valid"


@pytest.mark.requirement("SEC72", "C4")
async def test_where_nothing_more_fits_an_order_waits_with_its_certificate() -> None:
    async with running_server() as server:
        await server.register()
        order = await server.ready()
        quota = server.world.services.state.order_quota
        fits, quota.maximum_octets = quota.maximum_octets, quota.octets()
        waiting = await server.finalize(order)
        assert (waiting.status, waiting.problem["type"]) == (503, "rateLimited")
        assert (await server.post(order.location)).json["status"] == "ready"
        quota.maximum_octets = fits
        assert (await server.finalize(order)).json["status"] == "valid"


@pytest.mark.requirement("SEC62", "SEC72")
async def test_orders_that_come_at_once_do_not_exceed_a_limit() -> None:
    async with running_server() as server:
        await server.register()
        server.world.services.state.open_orders.maximum = 5
        answers = await asyncio.gather(*(server.order(f"{number}.example.com") for number in range(20)))
        assert sorted(each.status for each in answers) == [201] * 5 + [503] * 15  # before: up to 20
        assert len(server.world.stored_orders()) == 5
