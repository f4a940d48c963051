"""What a person has to lift first: a quota, an admission policy, a webhook, a missing permission."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.acme import b64
from tests.support.domain import World, counted
from tests.support.eventually import becomes, until
from tests.support.server import Answer, Server, running_server

Step = Callable[[], Awaitable[Answer]]
Scene = Callable[[Server], Awaitable[Step]]

STATUSES = (400, 402, 403, 405, 410, 413, 422)
"""RBAC and quotas answer 403, schemas 422, ValidatingAdmissionPolicies 403, 413 and 422; webhooks choose any."""


async def new_account(server: Server) -> Step:
    return server.register


async def new_order(server: Server) -> Step:
    await server.register()
    return server.order


async def finalize(server: Server) -> Step:
    await server.register()
    order = await server.ready()
    return lambda: server.finalize(order)


async def contact(server: Server) -> Step:
    await server.register()
    assert server.kid is not None
    kid = server.kid
    return lambda: server.post(kid, {"contact": ["mailto:a@example.com"]})


async def deactivation_of_an_authorization(server: Server) -> Step:
    await server.register()
    order = (await server.order()).json
    return lambda: server.post(order["authorizations"][0], {"status": "deactivated"})


async def revocation(server: Server) -> Step:
    await server.register()
    leaf = await server.certificate(await server.finalize(await server.ready()))
    payload = {"certificate": b64(leaf.public_bytes(Encoding.DER))}
    return lambda: server.post(f"{server.base}/revoke-cert", payload)


SCENES = [
    pytest.param(new_account, "create", "acmeaccounts", id="newAccount"),
    pytest.param(new_account, "update", "acmeaccounts", id="newAccount-status"),
    pytest.param(new_order, "create", "acmeorders", id="newOrder"),
    pytest.param(finalize, "update", "acmeorders", id="finalize"),
    pytest.param(contact, "update", "acmeaccounts", id="contact"),
    pytest.param(deactivation_of_an_authorization, "update", "acmeorders", id="authorization"),
    pytest.param(revocation, "update", "acmeorders", id="revokeCert"),
]


@asynccontextmanager
async def reporting(world: World) -> AsyncIterator[None]:
    """Post Events meanwhile, as the server does in the background."""
    task = asyncio.create_task(world.services.events.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("scene", "verb", "plural"), SCENES)
async def test_a_request_that_the_api_server_refuses_is_told_and_succeeds_once_it_no_longer_does(
    scene: Scene, verb: str, plural: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running_server() as server, reporting(server.world):
        world = server.world
        step = await scene(server)
        for status in STATUSES:
            world.api.fail_next(verb, plural, status)
            caplog.clear()
            answer = await step()
            assert (answer.status, answer.headers.get("Retry-After")) == (503, "30"), (status, answer.text)
            assert answer.problem["type"] == "serverInternal"
            assert "injected fault" not in answer.text
            (told,) = (each for each in caplog.records if each.getMessage() == "the Kubernetes API refused a request")
            *told_fields, error = fields(told)
            assert told_fields == ["WARNING", verb, plural]
            assert error.startswith("injected fault")
        assert (await step()).status in {200, 201}
        assert counted(world.metrics, "api_refusals") == {(plural, verb): len(STATUSES)}
        await world.services.events.idle()
        (event,) = events(world)
        assert event["reason"] == "WriteRefused"
        assert event["regarding"] | {"uid": "", "resourceVersion": ""} == {
            "apiVersion": "pki.kms.hanzo.ai/v1alpha1",
            "kind": "CertificateProfile",
            "name": "web",
            "namespace": "pki",
            "uid": "",
            "resourceVersion": "",
        }
        kind = "ACMEOrder" if plural == "acmeorders" else "ACMEAccount"
        assert event["note"].startswith(f"The API server refused to {verb} an {kind}: injected fault")


def fields(record: Any) -> tuple[str, str, str, str]:
    return record.levelname, record.verb, record.kind, record.error


def events(world: World) -> list[dict[str, Any]]:
    return [body for key, body in world.api.store.by_key.items() if key.plural == "events"]


async def test_a_quota_that_two_objects_use_at_once_is_busy(server: Server) -> None:
    server.world.api.fail_next("create", "acmeorders", 409)
    answer = await server.order()
    assert (answer.status, answer.headers.get("Retry-After")) == (503, "2")
    assert counted(server.world.metrics, "api_refusals") == {}
    assert (await server.order()).status == 201


async def test_thousands_of_refusals_are_one_event(server: Server) -> None:
    async with reporting(server.world):
        server.world.api.fail_next("create", "acmeorders", 422, times=300)
        for _ in range(30):
            answers = await asyncio.gather(*(server.order() for _ in range(10)))
            assert {each.status for each in answers} == {503}
        await server.world.services.events.idle()
    assert counted(server.world.metrics, "api_refusals") == {("acmeorders", "create"): 300}
    assert len(events(server.world)) == 1


async def test_an_event_that_is_refused_too_stops_nothing(server: Server) -> None:
    async with reporting(server.world):
        server.world.api.fail_next("create", "events", 403)
        server.world.api.fail_next("create", "acmeorders", 403)
        assert (await server.order()).status == 503
        await server.world.services.events.idle()
        assert events(server.world) == []
        server.world.api.fail_next("create", "acmeaccounts", 403)
        assert (await server.register(type(server.key)())).status == 503
        await server.world.services.events.idle()
    assert len(events(server.world)) == 1


async def test_a_challenge_whose_result_is_refused_for_long_is_validated_again_when_its_client_polls() -> None:
    def configure(world: World) -> None:
        world.timing = replace(world.timing, store_delays=(0.01,), store_for=0.05)

    async with running_server(configure) as server:
        await server.register()
        order = await server.order()
        (url,) = order.json["authorizations"]
        server.world.api.fail_next("update", "acmeorders", 422, times=10**6)
        await server.post((await server.post(url)).json["challenges"][0]["url"], {})
        await until(server.world.services.worker.is_idle)
        server.world.api.succeed()

        async def is_ready() -> bool:
            return bool((await server.post(order.location)).json["status"] == "ready")

        await becomes(is_ready)


async def test_why_the_api_server_is_away_is_in_the_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server.world.api.fail_next("create", "acmeorders", 500)  # a webhook that cannot be called, for example
    answer = await server.order()
    assert answer.status == 503
    assert "injected fault" not in answer.text
    (told,) = (each for each in caplog.records if each.getMessage() == "service unavailable")
    assert vars(told)["error"].startswith("injected fault")


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("status", [404, 409])
async def test_orders_cannot_be_listed_while_their_kind_is_not_served(status: int) -> None:
    """As after a restart of the API server, until it has the definitions of custom resources."""
    async with running_server() as server:
        await server.register()
        server.world.api.fail_next("list", "acmeorders", status)
        answer = await server.post(f"{server.kid}/orders")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
        assert (await server.post(f"{server.kid}/orders")).status == 200
