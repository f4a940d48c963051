"""Accounts on the whole server and across replicas: their keys, their orders, what they agree to, what binds them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from kms.resources.credentials import NameRules
from kms.resources.kinds import ACCOUNTS, ORDERS, SECRETS
from kms.resources.policies import DNSNameRules
from kms.resources.secret_names import verification_key_name
from tests.support import pki
from tests.support.acme import ALGORITHMS, MAC_KEY, ClientKey, binding, signed
from tests.support.domain import KEY_ID_1, NAMESPACE, PROFILE, RELEASE, World
from tests.support.server import Answer, Server, running_server


def in_small_pages(world: World) -> None:
    world.orders_page = 2


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server(in_small_pages) as running:
        await running.register()
        yield running


# Key change


async def change(server: Server, new: ClientKey, payload: bytes | None = None, **header: Any) -> Answer:
    """The request that RFC 8555, 7.3.5 describes, unless a test says otherwise."""
    url = f"{server.base}/key-change"
    if payload is None:
        members = {"account": server.kid, "oldKey": server.key.jwk}
        payload = signed(new, json.dumps(members).encode(), jwk=new.jwk, url=url)
    return await server.post(url, payload, **header)


@pytest.mark.requirement("M95", "M96", "M99", "S15", "C14", "M101")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_an_account_gets_another_key_of_any_kind(server: Server, algorithm: str) -> None:
    new, kid = ClientKey(algorithm), server.kid
    changed = await change(server, new)
    assert changed.status == 200, changed.text
    assert changed.location == kid
    assert changed.json == {"status": "valid", "orders": f"{kid}/orders"}
    refused = await server.order()  # by the old key: its signature is wrong, if it can be one of the new key at all
    assert refused.status == 400
    assert refused.problem["type"] in {"malformed", "badSignatureAlgorithm"}
    server.key = new
    assert (await server.order()).status == 201
    found = await server.register(onlyReturnExisting=True)
    assert (found.status, found.location) == (200, kid)


@pytest.mark.requirement("M77", "M83")
async def test_the_key_that_was_replaced_has_no_account_and_opens_none(server: Server) -> None:
    old = server.key
    await change(server, ClientKey())
    refused = await server.register(old, onlyReturnExisting=True)
    assert (refused.status, refused.problem["type"]) == (400, "accountDoesNotExist")
    refused = await server.register(old)
    assert (refused.status, refused.problem["type"]) == (400, "badPublicKey")


@pytest.mark.requirement("M98", "SEC23")
async def test_a_key_with_an_account_is_answered_with_where_that_is(server: Server) -> None:
    taken = ClientKey()
    owner = (await server.register(taken)).location
    refused = await change(server, taken)
    assert (refused.status, refused.problem["type"], refused.location) == (409, "malformed", owner)
    assert "is, or was, the key of an account" in refused.problem["detail"]
    own = await change(server, server.key)
    assert (own.status, own.location) == (409, server.kid)


@pytest.mark.requirement("M95", "SEC23", "SEC06")
async def test_the_outer_request_is_one_of_the_account_and_of_nobody_else(server: Server) -> None:
    new, stranger = ClientKey(), ClientKey()
    foreign = (await server.register(stranger)).location
    headers: tuple[dict[str, Any], ...] = (
        {"key": new},
        {"key": stranger},
        {"kid": None, "jwk": server.key.jwk},
        {"kid": foreign},
        {"nonce": None},
    )
    for header in headers:
        assert (await change(server, new, **header)).status == 400, header
    # A stranger who signs for his own account names another one inside.
    assert (await change(server, new, key=stranger, kid=foreign)).problem["type"] == "malformed"
    assert (await server.order()).status == 201


@pytest.mark.requirement("M97", "SEC23")
async def test_the_inner_request_is_for_this_account_and_this_key(server: Server) -> None:
    new, url = ClientKey(), f"{server.base}/key-change"
    for members in (
        {"account": server.kid, "oldKey": new.jwk},
        {"account": server.kid, "oldKey": ClientKey().jwk},
        {"account": f"{server.kid}x", "oldKey": server.key.jwk},
        {"oldKey": server.key.jwk},
    ):
        refused = await change(server, new, signed(new, json.dumps(members).encode(), jwk=new.jwk, url=url))
        assert (refused.status, refused.problem["type"]) == (400, "malformed")
    for payload in (b"", b"{}", b"[]", b"{"):
        refused = await change(server, new, payload)
        assert (refused.status, refused.problem["type"]) == (400, "malformed")
    accounts = [name for plural, _, name in server.world.api.store.by_key if plural == "acmeaccounts"]
    assert len(accounts) == 1


@pytest.mark.requirement("SEC13", "M21", "M101")
async def test_what_is_wrong_with_the_new_key_is_said_by_its_type(server: Server) -> None:
    new, url = ClientKey(), f"{server.base}/key-change"
    members = json.dumps({"account": server.kid, "oldKey": server.key.jwk}).encode()
    refused = await change(server, new, signed(new, members, jwk=new.jwk, url=url, alg="HS256"))
    assert refused.problem["type"] == "badSignatureAlgorithm"
    assert "ES256" in refused.problem["algorithms"]
    refused = await change(server, new, signed(new, members, jwk=new.jwk | {"crv": "P-192"}, url=url))
    assert refused.problem["type"] == "badPublicKey"


@pytest.mark.requirement("SEC07")
async def test_a_deactivated_account_changes_nothing(server: Server) -> None:
    assert server.kid is not None
    await server.post(server.kid, {"status": "deactivated"})
    assert (await change(server, ClientKey())).status == 401


@pytest.mark.requirement("M99", "SEC56")
async def test_a_replica_that_has_not_heard_of_the_change_takes_the_new_key_at_once(
    server: Server, other: Server
) -> None:
    assert (await other.order()).status == 201  # so it remembers the old key
    old, new = server.key, ClientKey()
    assert (await change(server, new)).status == 200
    other.key = new
    assert (await other.order()).status == 201
    other.key = old
    assert (await other.order()).status == 400
    found = await other.register(new, onlyReturnExisting=True)
    assert (found.status, found.location) == (200, server.kid)


@pytest.mark.requirement("SEC37")
async def test_a_wrong_signature_costs_one_read_where_there_are_other_replicas(server: Server, other: Server) -> None:
    assert (await other.order()).status == 201
    before = len(server.world.api.requests)
    refused = await other.post(f"{server.base}/new-order", {}, key=ClientKey())
    assert (refused.status, refused.problem["type"]) == (400, "malformed")
    assert server.world.calls(before) == ["get acmeaccounts"]


# The list of orders


async def pages(server: Server, url: str) -> list[list[str]]:
    """The list from there on, as its links lead through it."""
    found = []
    while url:
        page = await server.post(url)
        assert page.status == 200, page.text
        found.append(page.json["orders"])
        assert len(found) < 10
        url = next((each[1:].split(">")[0] for each in page.urls if 'rel="next"' in each), "")
    return found


@pytest.mark.requirement("M54")
async def test_the_list_of_orders_goes_on_from_page_to_page(server: Server) -> None:
    created = {(await server.order(f"{number}.example.com")).location for number in range(5)}
    listed = await pages(server, f"{server.kid}/orders")
    assert [len(each) for each in listed] == [2, 2, 1]
    assert {url for page in listed for url in page} == created
    assert await pages(server, f"{server.kid}/orders") == listed


@pytest.mark.requirement("M54", "M55")
async def test_orders_that_became_invalid_are_left_out(server: Server) -> None:
    orders = [await server.order(f"{number}.example.com") for number in range(4)]
    await server.post(orders[0].json["authorizations"][0], {"status": "deactivated"})
    listed = {url for page in await pages(server, f"{server.kid}/orders") for url in page}
    assert listed == {each.location for each in orders[1:]}


@pytest.mark.requirement("M55", "SEC03")
async def test_a_page_of_somebody_elses_list_shows_nothing_of_it(server: Server) -> None:
    for number in range(5):
        await server.order(f"{number}.example.com")
    first = await server.post(f"{server.kid}/orders")
    (following,) = [each[1:].split(">")[0] for each in first.urls if 'rel="next"' in each]
    cursor = following.rpartition("/")[2]
    server.key = ClientKey()
    await server.register()
    assert (await server.post(following)).status == 404
    assert await pages(server, f"{server.kid}/orders/{cursor}") == [[]]


@pytest.mark.requirement("M54")
async def test_a_page_that_is_too_old_or_was_made_up_says_where_to_begin(server: Server) -> None:
    for number in range(5):
        await server.order(f"{number}.example.com")
    first = await server.post(f"{server.kid}/orders")
    (following,) = [each[1:].split(">")[0] for each in first.urls if 'rel="next"' in each]
    server.world.api.store.compact()
    for url in (following, f"{server.kid}/orders/made-up"):
        refused = await server.post(url)
        assert (refused.status, refused.problem["type"]) == (404, "malformed")
        assert "from its beginning" in refused.problem["detail"]


# Deactivation


@pytest.mark.requirement("SEC07", "M103")
async def test_what_another_replica_has_deactivated_is_no_account_for_newaccount_either(
    server: Server, other: Server
) -> None:
    assert (await other.register()).status == 200
    assert server.kid is not None
    await server.post(server.kid, {"status": "deactivated"})
    refused = await other.register()
    assert (refused.status, refused.problem["type"]) == (401, "unauthorized")


@pytest.mark.requirement("SEC07", "SEC56")
async def test_a_replica_whose_memory_is_old_records_no_proof_for_a_deactivated_account(
    server: Server, other: Server
) -> None:
    gate = server.world.validator.gate = asyncio.Event()
    order = await other.order()
    (url,) = order.json["authorizations"]
    (challenge,) = (await other.post(url)).json["challenges"]
    assert server.kid is not None
    await server.post(server.kid, {"status": "deactivated"})
    assert (await other.post(challenge["url"], {})).json["status"] == "processing"  # it does not know yet
    gate.set()
    await other.world.services.worker.drain(5)
    stored = server.world.api.read(ORDERS, NAMESPACE, order.location.rpartition("/")[2])
    assert stored is not None
    assert stored.status.state == "invalid"
    (proof,) = stored.status.authorizations[0].challenges
    assert proof.error is not None
    assert "deactivated" in proof.error.detail


# Terms of service

TERMS = "https://ca.example.com/terms/"


@pytest.mark.requirement("M86", "M81")
async def test_new_terms_are_agreed_to_before_the_next_order_on_every_replica(server: Server, other: Server) -> None:
    server.world.configure(terms_of_service=f"{TERMS}2", terms_of_service_changes="RequireAgreement")
    for replica in (server, other):
        refused = await replica.order()
        assert (refused.status, refused.problem["type"]) == (403, "userActionRequired")
        assert refused.problem["instance"] == f"{TERMS}2"
        assert f'<{TERMS}2>;rel="terms-of-service"' in refused.urls
    # Without agreement newAccount says no more than before (M76).
    assert (await server.register()).status == 200
    assert (await server.order()).status == 403
    agreed = await server.register(termsOfServiceAgreed=True)
    assert (agreed.status, agreed.json["termsOfServiceAgreed"]) == (200, True)
    assert (await server.order()).status == 201
    assert (await other.order()).status == 201
    stored = server.world.api.read(ACCOUNTS, NAMESPACE, agreed.location.rpartition("/")[2])
    assert stored is not None
    assert stored.status.terms_of_service_agreed == f"{TERMS}2"


@pytest.mark.requirement("M86", "M76")
async def test_where_changes_are_ignored_old_accounts_order_on_and_agreeing_writes_nothing(server: Server) -> None:
    server.world.configure(terms_of_service=f"{TERMS}2")
    before = len(server.world.api.requests)
    assert (await server.register(termsOfServiceAgreed=True)).status == 200
    assert server.world.calls(before) == []
    assert (await server.order()).status == 201
    refused = await server.register(ClientKey())
    assert (refused.status, refused.problem["type"]) == (403, "userActionRequired")


@pytest.mark.requirement("M85")
async def test_what_was_ordered_under_the_old_terms_is_finished_under_them(server: Server) -> None:
    order = await server.ready()
    server.world.configure(terms_of_service=f"{TERMS}2", terms_of_service_changes="RequireAgreement")
    assert (await server.finalize(order)).json["status"] == "valid"


# External account binding


async def bound(server: Server, key: ClientKey, *, alg: str = "HS256", **changes: Any) -> Answer:
    url = f"{server.base}/new-account"
    members = binding(key, url=url, **({"mac_key": MAC_KEY, "kid": KEY_ID_1, "alg": alg} | changes))
    return await server.register(key, externalAccountBinding=members)


@pytest.mark.requirement("SEC11", "M90", "M92")
@pytest.mark.parametrize("mac", ["HS256", "HS384", "HS512"])
async def test_every_kind_of_key_is_bound_with_every_mac(server: Server, mac: str) -> None:
    server.world.configure(external_account_binding="Required")
    server.world.put_credential()
    for algorithm in ALGORITHMS:
        assert (await bound(server, ClientKey(algorithm), alg=mac)).status == 201, algorithm


@pytest.mark.requirement("SEC09", "SEC37")
@pytest.mark.parametrize("cached", [True, False])
async def test_an_unknown_key_identifier_costs_what_a_wrong_mac_costs(server: Server, cached: bool) -> None:
    server.world.configure(external_account_binding="Required")
    server.world.put_credential(cached=cached)
    costs, answers = [], []
    for changes in ({"kid": "nobody"}, {"mac_key": b"w" * 32}):
        before = len(server.world.api.requests)
        refused = await bound(server, ClientKey(), **changes)
        assert refused.problem["type"] == "unauthorized"
        answers.append(refused.without_nonce())
        costs.append(server.world.calls(before))
    assert costs[0] == costs[1] == ["get acmeaccounts", "get secrets"]
    assert answers[0] == answers[1]


@pytest.mark.requirement("SEC12c")
async def test_a_credential_of_another_profile_is_answered_like_one_that_is_not_there(server: Server) -> None:
    server.world.configure(external_account_binding="Required")
    server.world.put_credential(profile="other")
    foreign, unknown = await bound(server, ClientKey()), await bound(server, ClientKey(), kid="nobody")
    assert (foreign.status, foreign.problem) == (403, unknown.problem)


@pytest.mark.requirement("SEC12b")
async def test_accounts_outlive_the_expiry_and_the_rotation_of_their_credential_and_not_its_deletion(
    server: Server,
) -> None:
    world = server.world
    world.configure(external_account_binding="Required")
    world.put_credential()
    server.key = ClientKey()
    server.kid = (await bound(server, server.key)).location
    world.change_credential(expires_at=world.clock() - timedelta(seconds=1))
    assert (await server.order()).status == 201
    # Rotated: another key identifier, the old copy is gone.
    world.api.remove(SECRETS, RELEASE, verification_key_name(NAMESPACE, PROFILE, KEY_ID_1))
    assert (await server.order()).status == 201
    world.remove_credential()
    refused = await server.order()
    assert refused.status == 503
    assert refused.problem["detail"] == "The account's EAB credential team/cred was deleted a moment ago."
    assert (await server.register()).status == 200  # a known key needs the binding no more (C18)


@pytest.mark.requirement("SEC12b")
async def test_a_suspended_credential_stops_its_accounts_and_lets_them_go_on_afterwards(server: Server) -> None:
    world = server.world
    world.configure(external_account_binding="Required")
    world.put_credential()
    server.key = ClientKey()
    server.kid = (await bound(server, server.key)).location
    ready = await server.ready()
    world.change_credential(suspended=True)
    for refused in (await server.order(), await server.finalize(ready)):
        assert (refused.status, refused.problem["type"]) == (403, "unauthorized")
        assert "suspended" in refused.problem["detail"]
    world.change_credential(suspended=False)
    assert (await server.finalize(ready)).json["status"] == "valid"


@pytest.mark.requirement("SEC28", "SEC12b")
async def test_the_names_of_the_credential_bind_at_neworder_and_again_at_finalize(server: Server) -> None:
    world = server.world
    world.configure(external_account_binding="Required")
    credential = world.put_credential(names=NameRules(dns_names=DNSNameRules(allowed=("*.shop.example.com",))))
    server.key = ClientKey()
    server.kid = (await bound(server, server.key)).location
    refused = await server.order("a.shop.example.com", "b.example.com")
    assert (refused.status, refused.problem["type"]) == (403, "rejectedIdentifier")
    assert [each["identifier"]["value"] for each in refused.problem["subproblems"]] == ["b.example.com"]
    assert "team/cred" in refused.problem["subproblems"][0]["detail"]
    ready = await server.ready("a.shop.example.com")
    narrower = NameRules(dns_names=DNSNameRules(allowed=("b.shop.example.com",)))
    world.credentials.put(
        msgspec.structs.replace(credential, spec=msgspec.structs.replace(credential.spec, names=narrower))
    )
    refused = await server.finalize(ready, pki.csr("a.shop.example.com"))
    assert (refused.status, refused.problem["type"]) == (400, "badCSR"), refused.text
    assert (await server.post(ready.location)).json["status"] == "ready"
