"""Orders, authorizations and challenges over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta, timezone
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from acme_server.api import representations
from acme_server.certificates.renewal_info import RenewalInfo
from acme_server.certificates.renewal_window import Window
from acme_server.state.store import Store
from acme_server.urls import URLs
from kms.resources.orders import Identifier, StoredProblem
from tests.support.acme import EXTERNAL_URL
from tests.support.acmeorders import NOW, proven
from tests.support.acmeorders import order as an_order
from tests.support.domain import World, wrong
from tests.support.server import Answer, Server, running_server

URN = "urn:ietf:params:acme:error:"
PREFIX = f"{EXTERNAL_URL}/acme/pki/web"
AT = URLs(EXTERNAL_URL)
SHOWN = "2026-11-23T12:00:00Z"
"""NOW, as clients see it."""


def started_earlier(world: World) -> None:
    """So that no order is older than the server, which would validate it again as one of its last life."""
    world.clock.ahead = timedelta(seconds=-3)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server(started_earlier) as running:
        running.world.clock.ahead = timedelta(0)
        await running.register()
        yield running


@pytest.fixture
async def order(server: Server) -> Answer:
    return await server.order("a.example.com", "b.example.com")


@pytest.mark.requirement("M56", "M106", "C1")
async def test_a_new_order_is_created_with_its_url(server: Server) -> None:
    answer = await server.order("a.example.com")
    url = answer.location
    id_ = url.removeprefix(f"{PREFIX}/orders/")
    expires = answer.json["expires"]
    assert answer.status == 201
    assert answer.json == {
        "status": "pending",
        "expires": expires,
        "identifiers": [{"type": "dns", "value": "a.example.com"}],
        "authorizations": [f"{PREFIX}/authorizations/{id_}-0"],
        "finalize": f"{url}/finalize",
    }
    assert expires.endswith("Z")


@pytest.mark.requirement("M45", "M56", "M60")
def test_an_order_is_shown_with_everything_that_it_has() -> None:
    pending = an_order("*.example.com", "b.example.com")
    spec = replace(pending.spec, not_before=NOW, not_after=NOW)
    error = StoredProblem(type="unauthorized", detail="no")
    invalid = replace(pending, spec=spec, status=replace(pending.status, state="invalid", error=error))
    shown = representations.order(invalid, AT.of_order(invalid))
    assert (shown["status"], shown["notBefore"], shown["notAfter"]) == ("invalid", SHOWN, SHOWN)
    assert shown["identifiers"] == invalid.spec.identifiers
    assert shown["error"] == {"type": URN + "unauthorized", "detail": "no", "status": 403}
    assert "certificate" not in shown


@pytest.mark.requirement("M57", "M61", "M64")
def test_an_authorization_is_for_the_base_name_of_a_wildcard() -> None:
    order = an_order("*.example.com", "b.example.com")
    url = AT.challenge(order, 0, "http-01")
    assert representations.authorization(order, 0, AT) == {
        "status": "pending",
        "expires": "2026-11-24T12:00:00Z",
        "identifier": Identifier(type="dns", value="example.com"),
        "wildcard": True,
        "challenges": [{"type": "http-01", "url": url, "status": "pending", "token": "token-0"}],
    }
    assert "wildcard" not in representations.authorization(order, 1, AT)


@pytest.mark.requirement("M65", "M143")
def test_a_finished_authorization_shows_the_challenges_that_were_tried() -> None:
    order = proven(an_order("a.example.com"))
    (first,) = order.status.authorizations
    other = replace(first.challenges[0], type="dns-01", state="pending")
    both = replace(first, challenges=(first.challenges[0], other))
    order = replace(order, status=replace(order.status, authorizations=(both,)))
    (shown,) = representations.authorization(order, 0, AT)["challenges"]
    assert (shown["type"], shown["validated"]) == ("http-01", SHOWN)


@pytest.mark.requirement("M45")
def test_times_are_whole_seconds_in_utc() -> None:
    """As some were stored by earlier releases, and as renewal windows are computed."""
    odd = (NOW + timedelta(seconds=1, microseconds=999_999)).astimezone(timezone(timedelta(hours=5)))
    order = proven(an_order(created=odd - timedelta(hours=24)), at=odd)
    spec = replace(order.spec, not_before=odd, not_after=odd)
    views = [
        representations.order(replace(order, spec=spec), AT.of_order(order)),
        representations.authorization(order, 0, AT),
        representations.renewal_info(RenewalInfo(Window(odd, odd), timedelta(hours=6))),
    ]
    times = re.findall(r'"(\d{4}-[^"]*)"', msgspec.json.encode(views).decode())
    assert len(times) == 7
    assert set(times) <= {"2026-11-23T12:00:01Z", "2026-11-24T12:00:01Z"}


@pytest.mark.requirement("M116", "C2")
async def test_while_an_order_is_processing_it_says_when_to_ask_again(server: Server) -> None:
    order = await server.ready()
    assert "Retry-After" not in order.headers
    server.world.clock.ahead += server.world.profile.order_lifetime / 2
    server.world.remove_authority_key()
    processing = await server.finalize(order)
    for answer in (processing, await server.post(order.location)):
        assert (answer.json["status"], answer.headers["Retry-After"]) == ("processing", "1")
        assert answer.location == order.location


@pytest.mark.requirement("M26")
@pytest.mark.parametrize("path", ["", "/certificate"])
@pytest.mark.parametrize("payload", [{}, b"x", []])
async def test_what_can_only_be_read_takes_no_payload(server: Server, order: Answer, path: str, payload: Any) -> None:
    assert (await server.post(order.location + path, payload)).status == 400


@pytest.mark.requirement("M111")
@pytest.mark.parametrize("payload", [None, {}, {"csr": "a="}, {"csr": 5}, b"{"])
async def test_finalize_needs_a_request(server: Server, payload: Any) -> None:
    order = await server.ready()
    assert (await server.post(order.json["finalize"], payload)).problem["type"] == "malformed"
    assert (await server.post(order.location)).json["status"] == "ready"


@pytest.mark.requirement("SEC03")
async def test_the_owner_of_an_order_is_asked_before_what_is_in_the_request(server: Server) -> None:
    for path in ("orders/{}", "orders/{}/finalize", "orders/{}/certificate", "authorizations/{}-0"):
        assert (await server.post(f"{PREFIX}/{path.format('b' * 32)}", b"nonsense")).status == 404


@pytest.mark.requirement("SEC56")
async def test_a_certificate_that_another_replica_has_just_issued_is_found(server: Server) -> None:
    order = await server.ready()
    assert (await server.post(f"{order.location}/certificate")).status == 404
    other = server.world.another()
    account = await other.services.state.accounts.get("pki", (server.kid or "").rpartition("/")[2])
    assert account is not None
    loaded = await other.services.orders.get(other.caller(account), order.location.rpartition("/")[2])
    await other.finalized(account, loaded)
    assert (await server.post(f"{order.location}/certificate")).status == 200


async def test_a_position_that_the_order_does_not_have_is_not_found(server: Server, order: Answer) -> None:
    name = order.location.rpartition("/")[2]
    assert (await server.post(f"{PREFIX}/authorizations/{name}-2")).status == 404
    assert (await server.post(f"{PREFIX}/authorizations/{name}-999/challenges/http-01")).status == 404


@pytest.mark.requirement("M134", "SEC02")
async def test_an_authorization_is_deactivated_and_changed_in_no_other_way(server: Server, order: Answer) -> None:
    url = order.json["authorizations"][0]
    for payload in ({}, {"status": "valid"}, {"status": None}, {"status": "revoked"}):
        assert (await server.post(url, payload)).problem["type"] == "malformed"
    ended = await server.post(url, {"status": "deactivated", "resource": "authz"})
    assert (ended.status, ended.json["status"]) == (200, "deactivated")


@pytest.mark.requirement("M127", "M129", "M132")
@pytest.mark.parametrize("payload", [{}, {"resource": "challenge", "keyAuthorization": "x"}])
async def test_a_response_to_a_challenge_begins_its_validation(server: Server, order: Answer, payload: Any) -> None:
    server.world.validator.gate = asyncio.Event()
    url = order.json["authorizations"][1]
    (offered,) = (await server.post(url)).json["challenges"]
    answer = await server.post(offered["url"], payload)
    assert answer.headers["Retry-After"] == "1"
    assert answer.urls == (f'<{url}>;rel="up"', f'<{PREFIX}/directory>;rel="index"')
    assert answer.json == offered | {"status": "processing"}
    assert (await server.post(url)).headers["Retry-After"] == "1"
    assert [name for name, _, _ in server.world.validator.asked] == ["b.example.com"]


@pytest.mark.requirement("M27", "S131")
async def test_an_empty_payload_reads_a_challenge_and_begins_nothing(server: Server, order: Answer) -> None:
    server.world.validator.failures["a.example.com"] = wrong()
    (offered,) = (await server.post(order.json["authorizations"][0])).json["challenges"]
    assert (await server.post(offered["url"])).json == offered
    assert server.world.validator.asked == []
    url = f"{order.json['authorizations'][0]}/challenges/http-01"
    await server.post(url, {})
    await server.post(order.location)
    asked = len(server.world.validator.asked)
    shown = (await server.post(url)).json
    assert (shown["status"], shown["error"]["type"]) == ("invalid", URN + "unauthorized")
    assert len(server.world.validator.asked) == asked


@pytest.mark.requirement("SEC02", "SEC50")
@pytest.mark.parametrize("payload", [None, {}])
async def test_a_challenge_that_is_not_offered_is_not_found(server: Server, order: Answer, payload: Any) -> None:
    assert (await server.post(f"{order.json['authorizations'][0]}/challenges/dns-01", payload)).status == 404


@pytest.mark.requirement("M128")
@pytest.mark.parametrize("payload", [b"x", [], "x"])
async def test_a_response_that_is_no_object_is_malformed(server: Server, order: Answer, payload: Any) -> None:
    answer = await server.post(f"{order.json['authorizations'][0]}/challenges/http-01", payload)
    assert answer.problem["type"] == "malformed"
    assert server.world.validator.asked == []


async def test_a_request_looks_its_account_and_its_order_up_once(
    server: Server, order: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    get = Store.get

    async def counting(store: Store[Any], namespace: str, name: str) -> Any:
        found = await get(store, namespace, name)
        read.append(type(found).__name__)
        return found

    server.world.validator.gate = asyncio.Event()
    monkeypatch.setattr(Store, "get", counting)
    (url, _) = order.json["authorizations"]
    await server.post(f"{url}/challenges/http-01", {})
    assert read == ["ACMEAccount", "ACMEOrder"]
    read.clear()
    await server.post(url, {"status": "deactivated"})
    assert read == ["ACMEAccount", "ACMEOrder"]


async def test_finalize_loads_its_order_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    order = await server.ready()
    before = len(server.world.api.requests)
    read: list[str] = []
    get = Store.get

    async def counting(store: Store[Any], namespace: str, name: str) -> Any:
        found = await get(store, namespace, name)
        read.append(type(found).__name__)
        return found

    monkeypatch.setattr(Store, "get", counting)
    assert (await server.finalize(order)).json["status"] == "valid"
    assert read.count("ACMEOrder") == 1
    assert read.count("ACMEAccount") == 2, "to authenticate, and again right before the certificate is signed"
    assert [each for each in server.world.calls(before) if "order" in each] == ["update acmeorders"]
