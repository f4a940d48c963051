"""Events: what happens stands on the object whose owner can do something about it, and strangers cannot flood etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from acme_server.state.event_recorder import EventRecorder, Note
from kms.resources.kinds import CREDENTIALS
from tests.support import pki
from tests.support.acme import EXTERNAL_URL, ClientKey, binding
from tests.support.apiserver import running_api
from tests.support.domain import KEY_ID_1, Clock, World, wrong
from tests.support.eventually import until
from tests.support.server import Answer, Server, running_server


@asynccontextmanager
async def recording(world: World) -> AsyncIterator[None]:
    task = asyncio.create_task(world.services.events.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server whose profile requires bindings, and a client with an account of the credential team/cred."""
    async with running_server(lambda world: world.configure(external_account_binding="Required")) as running:
        running.world.put_credential()
        await register(running, running.key)
        async with recording(running.world):
            yield running


async def register(server: Server, key: ClientKey, **changes: Any) -> Answer:
    url = f"{EXTERNAL_URL}/acme/pki/web/new-account"
    return await server.register(key, externalAccountBinding=binding(key, url=url, **{"kid": KEY_ID_1, **changes}))


async def told(server: Server) -> list[tuple[str, str, str, str]]:
    """The kind, name, reason and note of each Event, and nothing else happens meanwhile."""
    await server.world.services.events.idle()
    return sorted(
        (each["regarding"]["kind"], each["regarding"]["name"], each["reason"], each["note"])
        for each in bodies(server.world.api)
    )


def bodies(api: Any) -> list[dict[str, Any]]:
    return [body for key, body in api.store.by_key.items() if key.plural == "events"]


@pytest.mark.requirement("P14")
async def test_a_refusal_by_policy_stands_on_the_credential_in_its_own_namespace_and_without_names_on_the_profile(
    server: Server,
) -> None:
    answer = await server.order("secret.example.org")
    assert answer.status == 403
    (profile, credential) = await told(server)
    assert credential == ("EABCredential", "cred", "OrderRefused", answer.problem["detail"])
    assert profile[:3] == ("CertificateProfile", "web", "RefusedByPolicy")
    assert "rejectedIdentifier" in profile[3]
    for hidden in ("example.org", "team", "cred"):
        assert hidden not in profile[3]
    assert {each["metadata"]["namespace"] for each in bodies(server.world.api)} == {"team", "pki"}


@pytest.mark.requirement("P14")
async def test_an_issuance_and_what_only_its_client_can_correct_are_no_events(server: Server) -> None:
    await server.finalize(await server.ready("a.example.com"))
    await server.order("a_b.example.com")
    await server.post(f"{server.base}/new-order", {"identifiers": "x"})
    await server.post(f"{server.base}/new-order", {}, nonce="none")
    assert await told(server) == []


@pytest.mark.requirement("P14", "SEC46")
async def test_wrong_secrets_and_limits_stand_on_the_credential(server: Server) -> None:
    for _ in range(20):
        await register(server, ClientKey(), mac_key=b"wrong")
        await register(server, ClientKey(), kid="unknown", mac_key=b"wrong")
    assert [each[:3] for each in await told(server)] == [("EABCredential", "cred", "WrongSecret")]
    server.world.change_credential(suspended=True)
    await register(server, ClientKey())
    await server.order("a.example.com")
    found = {each[2]: each[3] for each in await told(server)}
    assert found.keys() == {"WrongSecret", "AccountRefused", "OrderRefused"}
    assert "is suspended" in found["AccountRefused"]


@pytest.mark.requirement("P14")
async def test_an_order_that_failed_says_why(server: Server) -> None:
    server.world.validator.failures["a.example.com"] = wrong("the answer is wrong")
    order = await server.order("a.example.com")
    challenge = (await server.post(order.json["authorizations"][0])).json["challenges"][0]
    await server.post(challenge["url"], {})
    await until(server.world.services.worker.is_idle)
    (event,) = await told(server)
    assert event == (
        "ACMEOrder",
        order.location.rpartition("/")[2],
        "AuthorizationFailed",
        "a.example.com: the answer is wrong",
    )


@pytest.mark.requirement("P14")
async def test_a_ca_that_does_not_sign_stands_on_the_profile(server: Server) -> None:
    ready = await server.ready("a.example.com")
    server.world.remove_authority_key()
    for _ in range(3):
        assert (await server.finalize(ready, pki.csr("a.example.com"))).status == 503
    (event,) = await told(server)
    assert event[:3] == ("CertificateProfile", "web", "IssuerFailed")


async def test_what_happens_again_is_a_series_of_one_event(server: Server) -> None:
    for minutes in (0, 1, 6, 7, 12):
        server.world.clock.ahead = timedelta(minutes=minutes)
        server.world.services.events.record(note(server.world))
    await server.world.services.events.idle()
    (event,) = bodies(server.world.api)
    assert event["series"]["count"] == 5
    writes = [each.verb for each in server.world.api.writes if each.plural == "events"]
    assert writes == ["create", "patch", "patch"]
    server.world.api.store.by_key = {
        key: body for key, body in server.world.api.store.by_key.items() if key.plural != "events"
    }
    server.world.clock.ahead = timedelta(minutes=90)
    server.world.services.events.record(note(server.world))  # the API server has forgotten it
    await server.world.services.events.idle()
    (event,) = bodies(server.world.api)
    assert "series" not in event


def note(world: World, *, name: str = "cred", reason: str = "Test") -> Note:
    credential = world.credentials.get("team", "cred")
    assert credential is not None
    metadata = replace(credential.metadata, name=name, uid=f"uid-{name}")
    return Note(
        kind=CREDENTIALS, regarding=replace(credential, metadata=metadata), reason=reason, action="Test", text="text"
    )


async def test_a_namespace_has_a_share_of_the_events_of_a_minute(server: Server) -> None:
    clock = Clock()
    async with running_api() as api:
        events = EventRecorder(
            cluster=await api.cluster(), instance="test", clock=clock, namespace_share=5, minute_total=8, queued=1_000
        )
        task = asyncio.create_task(events.run())
        for namespace in ("a", "b", "c"):
            for number in range(50):
                events.record(in_namespace(server.world, namespace, f"n{number}"))
        await events.idle()
        assert [each["metadata"]["namespace"] for each in bodies(api)] == ["a"] * 5 + ["b"] * 3
        clock.ahead = timedelta(minutes=1)
        events.record(in_namespace(server.world, "c", "later"))
        await events.idle()
        assert bodies(api)[-1]["metadata"]["namespace"] == "c"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def in_namespace(world: World, namespace: str, name: str) -> Note:
    found = note(world, name=name)
    metadata = replace(found.regarding.metadata, namespace=namespace, uid=f"{namespace}-{name}")
    changed: Any = replace(found.regarding, metadata=metadata)  # type: ignore[type-var]
    return Note(kind=CREDENTIALS, regarding=changed, reason="Test", action="Test", text="text")


@pytest.mark.requirement("P14")
async def test_strangers_with_a_key_identifier_cause_one_write_in_five_minutes(server: Server) -> None:
    await server.world.services.events.idle()
    before = len(server.world.api.writes)
    for _ in range(5):
        await asyncio.gather(*(register(server, ClientKey(), mac_key=b"wrong") for _ in range(10)))
    await server.world.services.events.idle()
    assert [each.plural for each in server.world.api.writes[before:]] == ["events"]
