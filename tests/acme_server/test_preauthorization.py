"""newAuthz (RFC 8555, 7.4.1): an authorization that is there before any order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from acme_server.model import RequestedIdentifier
from acme_server.orders import transitions
from acme_server.payloads import NewAuthorization
from acme_server.problems import ProblemType
from kms.resources.kinds import ORDERS
from kms.resources.orders import ACMEOrder
from tests.support.acme import ClientKey
from tests.support.domain import World, running_world
from tests.support.refusals import refusal
from tests.support.server import Answer, Server, running_server

WWW = "www.example.com"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server(lambda world: world.configure(pre_authorization="Enabled")) as server:
        await server.register()
        yield server


async def asked(server: Server, value: str = WWW, type_: str = "dns") -> Answer:
    return await server.post(f"{server.base}/new-authz", {"identifier": {"type": type_, "value": value}})


async def proven(server: Server, value: str = WWW) -> Answer:
    authorization = await asked(server, value)
    await server.post(authorization.json["challenges"][0]["url"], {})
    return authorization


@pytest.mark.requirement("M120")
async def test_a_new_authorization_is_pending_and_proven_like_any_other(server: Server) -> None:
    answer = await asked(server)
    assert (answer.status, answer.json["status"]) == (201, "pending")
    assert answer.json["identifier"] == {"type": "dns", "value": WWW}
    assert (await server.post(answer.location)).json == answer.json
    assert answer.location.startswith(f"{server.base}/authorizations/")
    challenge = answer.json["challenges"][0]
    assert (await server.post(challenge["url"], {})).status == 200
    assert (await server.post(answer.location)).json["status"] == "valid"


@pytest.mark.requirement("M122", "M71", "S59", "SEC03")
async def test_the_accounts_orders_are_ready_by_it(server: Server) -> None:
    authorization = await proven(server)
    assert (await server.post(authorization.location)).json["status"] == "valid"
    order = await server.order()
    assert (order.json["status"], order.json["authorizations"]) == ("ready", [authorization.location])
    assert (await server.finalize(order)).json["status"] == "valid"
    server.key = ClientKey()
    await server.register()
    assert (await server.order()).json["status"] == "pending"
    assert (await server.post(authorization.location)).status == 404


@pytest.mark.requirement("M134", "M135")
async def test_deactivated_it_ends_the_orders_that_rely_on_it(server: Server) -> None:
    authorization = await proven(server)
    await server.post(authorization.location)
    order = await server.order()
    gone = await server.post(authorization.location, {"status": "deactivated"})
    assert gone.json["status"] == "deactivated"
    assert (await server.finalize(order)).problem["type"] == "orderNotReady"
    assert (await server.post(order.location)).json["status"] == "invalid"


async def test_it_is_no_order(server: Server) -> None:
    authorization = await asked(server)
    name = authorization.location.rpartition("/")[2].removesuffix("-0")
    missing = await server.post(f"{server.base}/orders/{'a' * 32}")
    for path in ("", "/finalize", "/certificate"):
        answer = await server.post(
            f"{server.base}/orders/{name}{path}", {"csr": "AAAA"} if path == "/finalize" else None
        )
        assert (answer.status, answer.text) == (404, missing.text)
    assert server.kid is not None
    assert (await server.post(f"{server.kid}/orders")).json == {"orders": []}


@pytest.mark.requirement("S119")
async def test_what_is_never_certified_is_not_authorized(server: Server) -> None:
    refused = await asked(server, "www.example.org")
    assert (refused.status, refused.problem["type"]) == (403, "rejectedIdentifier")
    refused = await asked(server, "10.0.0.1", "ip")
    assert (refused.status, refused.problem["type"]) == (403, "rejectedIdentifier")
    assert server.world.stored_orders() == []


@pytest.mark.requirement("M121", "M118", "SEC42")
@pytest.mark.parametrize(
    ("type_", "value", "problem"),
    [
        ("dns", "*.example.com", "malformed"),
        ("dns", "10.0.0.1", "malformed"),
        ("dns", "", "malformed"),
        ("email", "a@example.com", "unsupportedIdentifier"),
    ],
)
async def test_what_is_no_identifier_is_refused(server: Server, type_: str, value: str, problem: str) -> None:
    refused = await asked(server, value, type_)
    assert (refused.status, refused.problem["type"]) == (400, problem)


async def test_a_payload_of_another_form_is_malformed(server: Server) -> None:
    payloads: tuple[Any, ...] = ({}, {"identifier": WWW}, {"identifiers": []}, [], None)
    for payload in payloads:
        refused = await server.post(f"{server.base}/new-authz", payload)
        assert (refused.status, refused.problem["type"]) == (400, "malformed")


@pytest.mark.requirement("M48")
async def test_it_is_in_the_directory_exactly_when_it_works(server: Server) -> None:
    directory = (await server.get(f"{server.base}/directory")).json
    assert directory["newAuthz"] == f"{server.base}/new-authz"
    server.world.configure()
    assert "newAuthz" not in (await server.get(f"{server.base}/directory")).json
    assert (await asked(server)).status == 404


# What stands behind it


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world(lambda world: world.configure(pre_authorization="Enabled")) as world:
        yield world


async def opened(world: World, value: str = WWW) -> ACMEOrder:
    wanted = NewAuthorization(identifier=RequestedIdentifier(type="dns", value=value))
    return await world.services.orders.preauthorize(world.caller(await world.account()), wanted)


async def valid(world: World) -> ACMEOrder:
    order = await opened(world)
    await world.respond(order, 0, "http-01")
    return await world.services.orders.poll(order)


@pytest.mark.requirement("SEC67")
async def test_it_holds_as_long_as_it_says_and_not_only_as_long_as_an_order(world: World) -> None:
    world.configure(pre_authorization="Enabled", authorization_lifetime="72h")
    order = await valid(world)
    world.clock.ahead = timedelta(hours=70)
    assert (await world.services.orders.poll(order)).status.authorizations[0].state == "valid"
    assert (await world.order(await world.account())).status.state == "ready"
    world.clock.ahead = timedelta(hours=73)
    assert (await world.services.orders.poll(order)).status.authorizations[0].state == "expired"
    assert (await world.order(await world.account())).status.state == "pending"


@pytest.mark.requirement("SEC38")
async def test_only_while_it_is_pending_it_is_one_of_the_open_orders(world: World) -> None:
    limits = world.services.state.open_orders
    limits.maximum = 1
    order = await opened(world)
    assert (await refusal(opened(world, "api.example.com"))).type == ProblemType.RATE_LIMITED
    await world.respond(order, 0, "http-01")
    await world.services.orders.poll(order)
    await opened(world, "api.example.com")


@pytest.mark.requirement("M120", "SEC50")
async def test_where_ownership_is_not_validated_it_is_valid_at_once(world: World) -> None:
    world.configure(pre_authorization="Enabled", external_account_binding="Required", ownership_validation="Skipped")
    account = await world.bound()
    wanted = NewAuthorization(identifier=RequestedIdentifier(type="dns", value=WWW))
    order = await world.services.orders.preauthorize(world.caller(account), wanted)
    assert order.status.authorizations[0].state == "valid"
    assert (await world.order(account)).spec.authorized[0].order is None


async def test_it_costs_one_write_and_is_told_from_orders_by_people(world: World) -> None:
    await world.account()
    before = len(world.api.requests)
    order = await opened(world)
    assert [each for each in world.calls(before) if each.endswith("acmeorders")] == ["create acmeorders"]
    stored = world.api.read(ORDERS, "pki", order.metadata.name)
    assert stored is not None
    assert (stored.spec.preauthorization, stored.spec.names, stored.metadata.labels) == (True, WWW, {})


async def test_a_failed_one_ends(world: World) -> None:
    order = await opened(world)
    failed = transitions.deactivated(order, 0, now=world.clock())
    assert failed.status.state == "invalid"
