"""Notifications arrive at least once, over restarts and failures, where they may, and delay nobody."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.notifications.post import Poster
from acme_server.settings import ValidationSettings
from kms.resources.core import Secret
from kms.resources.kinds import LEASES, ORDERS
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.notifications import AuthorityNotifications, Notifications, Progress
from kms.resources.secret_names import notification_key_name
from tests.support.acme import b64
from tests.support.domain import RELEASE, World
from tests.support.eventually import until
from tests.support.receivers import BUNDLE, KEY, running_receiver, write_certificate
from tests.support.server import Server, running_server

DOCS = Path(__file__).parents[3] / "docs" / "notifications.md"
LOCAL = ValidationSettings(allow=(ip_network("127.0.0.0/8"),))


def told(world: World, url: str, uid: str = "profile-uid", **more: Any) -> None:
    """Give the profile `web`, or the CA `ca`, a receiver with this URL."""
    model = Notifications if uid == "profile-uid" else AuthorityNotifications
    section = model(url=url, secret_ref=LocalRef(name="key"), ca_bundle=BUNDLE, **more)
    informer: Any = world.profiles if uid == "profile-uid" else world.authorities
    known = informer.get("pki", "web" if uid == "profile-uid" else "ca")
    informer.put(msgspec.structs.replace(known, spec=msgspec.structs.replace(known.spec, notifications=section)))
    metadata = ObjectMeta(namespace=RELEASE, name=notification_key_name(uid))
    world.secrets.put(Secret(metadata=metadata, data={"secret": KEY}))


@asynccontextmanager
async def leading(world: World) -> AsyncIterator[None]:
    """The world's server watches orders, and leads."""
    assert world.services.notifications is not None
    state = world.services.state
    works = (state.order_feed.run, state.order_sync.run, world.services.notifications.delivery.run)
    tasks = [asyncio.create_task(each()) for each in works]
    try:
        await until(lambda: bool(_stored(world)))
        yield
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _stored(world: World) -> list[Any]:
    leases = [each for key, each in world.api.store.by_key.items() if key.plural == LEASES.plural]
    return [text for each in leases for text in each["metadata"].get("annotations", {}).values()]


def _progress(world: World) -> list[Progress]:
    return [msgspec.json.decode(each, type=Progress) for each in _stored(world)]


def _newest_order(world: World) -> int:
    orders = [each for key, each in world.api.store.by_key.items() if key.plural == ORDERS.plural]
    return max(int(each["metadata"]["resourceVersion"]) for each in orders)


@asynccontextmanager
async def serving(settings: ValidationSettings = LOCAL) -> AsyncIterator[Server]:
    def configure(world: World) -> None:
        world.post = Poster.build(settings, deadline=2.0)

    async with running_server(configure) as server:
        await server.register()
        yield server


async def issue(server: Server, *names: str) -> Any:
    return await server.finalize(await server.ready(*names))


@pytest.mark.requirement("P15")
async def test_what_happens_is_told_and_signed_and_no_more_is_read_or_written_for_an_order() -> None:
    async with serving() as server, running_receiver() as receiver:
        told(server.world, receiver.url)
        async with leading(server.world):
            before = len(server.world.api.writes)
            order = await issue(server, "a.example.com")
            writes = [each for each in server.world.api.writes[before:] if each.plural != "leases"]
            assert len(writes) == 3
            await until(lambda: receiver.types() == ["certificate.issued"])
            certificate = await server.certificate(order)
            await server.post(
                "/acme/pki/web/revoke-cert", {"certificate": b64(certificate.public_bytes(Encoding.DER)), "reason": 4}
            )
            await until(lambda: receiver.types() == ["certificate.issued", "certificate.revoked"])
    issued, revoked = receiver.events
    assert issued["data"]["names"] == ["a.example.com"]
    assert int(issued["data"]["serialNumber"], 16) == certificate.serial_number
    assert revoked["data"]["reason"] == "superseded"
    assert issued["specversion"] == "1.0"
    assert issued["id"] != revoked["id"]


@pytest.mark.requirement("P15")
async def test_a_receiver_that_fails_gets_everything_later_in_order_from_another_server_too() -> None:
    async with serving() as server, running_receiver(status=503) as receiver:
        told(server.world, receiver.url)
        async with leading(server.world):
            await issue(server, "a.example.com")
            await issue(server, "b.example.com")
            await until(lambda: receiver.attempts >= 2 and "Failing" in str(_stored(server.world)))
            assert "503" in str(_stored(server.world))
        receiver.status = 204
        async with leading(server.world.another()):
            await until(lambda: len(receiver.events) == 2)
            await until(lambda: "Failing" not in str(_stored(server.world)))
    assert [each["data"]["names"] for each in receiver.events] == [["a.example.com"], ["b.example.com"]]


@pytest.mark.requirement("P15")
async def test_what_was_told_is_not_told_again_by_the_next_server() -> None:
    async with serving() as server, running_receiver() as receiver:
        told(server.world, receiver.url)
        async with leading(server.world):
            order = await issue(server, "a.example.com")
            await until(lambda: len(receiver.events) == 1)
            told_version = _newest_order(server.world)
            await until(lambda: any(each.version >= told_version for each in _progress(server.world)))
        async with leading(server.world.another()):
            await issue(server, "b.example.com")
            await until(lambda: len(receiver.events) >= 2)
    assert order.json["status"] == "valid"
    assert [each["data"]["names"] for each in receiver.events] == [["a.example.com"], ["b.example.com"]]


@pytest.mark.requirement("P15")
async def test_addresses_that_validation_may_not_contact_are_not_contacted_and_redirects_not_followed() -> None:
    async with serving(ValidationSettings()) as server, running_receiver() as receiver:
        told(server.world, receiver.url)
        async with leading(server.world):
            await issue(server, "a.example.com")
            await until(lambda: "ReceiverNotAllowed" in str(_stored(server.world)))
    assert receiver.attempts == 0
    async with serving() as server, running_receiver() as target, running_receiver(status=307) as receiver:
        receiver.headers["Location"] = target.url
        told(server.world, receiver.url)
        async with leading(server.world):
            await issue(server, "a.example.com")
            await until(lambda: receiver.attempts >= 2)
    assert target.attempts == 0


@pytest.mark.requirement("P15")
async def test_a_receiver_that_cannot_prove_its_name_is_told_nothing() -> None:
    async with serving() as server, running_receiver() as receiver:
        told(server.world, receiver.url.replace("127.0.0.1", "127.0.0.2"))
        async with leading(server.world):
            await issue(server, "a.example.com")
            await until(lambda: "Failing" in str(_stored(server.world)))
    assert receiver.attempts == 0


@pytest.mark.requirement("P15")
async def test_ends_are_told_once_for_each_threshold_and_not_of_what_was_renewed() -> None:
    async with serving() as server, running_receiver() as receiver:
        told(server.world, receiver.url, events=("Expiring",), expiring=("24h",))
        told(server.world, receiver.url, "ca-uid", expiring=("24h",))
        async with leading(server.world):
            await issue(server, "a.example.com")
            await issue(server, "b.example.com")
            server.world.clock.ahead += timedelta(hours=1)
            await issue(server, "b.example.com")
            profile_end = max(each.not_after for each in server.world.services.state.certificates.records())
            server.world.clock.ahead = profile_end - timedelta(hours=24, minutes=30) - datetime.now(UTC)
            await until(lambda: len(receiver.events) >= 1)
            server.world.clock.ahead += timedelta(days=365)
            await until(lambda: "authority.expiring" in receiver.types())
            await asyncio.sleep(0.3)
    names = [each["data"].get("names") for each in receiver.events]
    assert names.count(["a.example.com"]) == 1
    assert names.count(["b.example.com"]) <= 1
    assert receiver.types().count("authority.expiring") == 1


@pytest.mark.requirement("P15")
async def test_a_refused_request_is_told_by_the_server_that_refused() -> None:
    async with serving() as server, running_receiver() as receiver:
        told(server.world, receiver.url, events=("Refused",))
        assert server.world.services.notifications is not None
        for _ in range(15):
            assert (await server.order("www.example.org")).status == 403
        await server.world.services.notifications.refused.send()
    assert receiver.types() == ["request.refused"] * 10
    assert receiver.events[-1]["data"]["omitted"] == 5
    assert receiver.events[0]["data"]["error"] == "rejectedIdentifier"


@pytest.mark.requirement("P15")
async def test_the_receiver_of_the_documentation_takes_events(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    program, secret = tmp_path / "receiver.py", tmp_path / "secret"
    program.write_text(code)
    secret.write_bytes(KEY)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [sys.executable, str(program), *map(str, write_certificate(tmp_path)), str(secret), str(port)]
    process = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE)
    try:
        async with serving() as server:
            told(server.world, f"https://127.0.0.1:{port}/")
            async with leading(server.world):
                await issue(server, "a.example.com")
                assert process.stdout is not None
                line = await asyncio.wait_for(process.stdout.readline(), 20)
    finally:
        process.kill()
        await process.wait()
    assert msgspec.json.decode(line)["data"]["names"] == ["a.example.com"]
