"""Who may do what, on the whole server and across replicas (SEC01 to SEC08, SEC19, SEC20, SEC37)."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import pki
from tests.support.acme import EXTERNAL_URL, ClientKey, signed
from tests.support.domain import wrong
from tests.support.server import Server


async def urls_of(server: Server) -> list[str]:
    """Every URL that an order has handed out, once it is valid, and those of the account."""
    order = await server.finalize(await server.ready())
    (authorization,) = order.json["authorizations"]
    (challenge,) = (await server.post(authorization)).json["challenges"]
    assert server.kid is not None
    return [
        order.location,
        order.json["finalize"],
        order.json["certificate"],
        f"{order.json['certificate']}/1",
        authorization,
        challenge["url"],
        server.kid,
        f"{server.kid}/orders",
        f"{server.kid}/orders/next",
    ]


@pytest.mark.requirement("SEC03")
async def test_objects_of_others_answer_like_objects_that_do_not_exist(server: Server) -> None:
    mine = await urls_of(server)
    orders = mine[0].rsplit("/", 1)[1]
    server.key = ClientKey()
    await server.register()
    for url in mine[:6]:
        missing = url.replace(orders, "a" * len(orders))
        foreign, unknown = await server.post(url, {"csr": ""}), await server.post(missing, {"csr": ""})
        assert foreign.status == 404
        assert foreign.without_nonce() == unknown.without_nonce()  # SEC03
    for url in mine[6:]:
        assert (await server.post(url)).status == 404


@pytest.mark.requirement("M25", "SEC08")
async def test_nothing_of_an_account_is_readable_without_its_signature(server: Server) -> None:
    for url in await urls_of(server):
        got = await server.get(url)
        assert (got.status, got.headers["Allow"]) == (405, "POST")  # SEC08
        assert "certificate" not in got.text.lower()


@pytest.mark.requirement("M102", "M103", "SEC07")
async def test_after_its_deactivation_an_account_is_refused_everywhere(server: Server, other: Server) -> None:
    urls = await urls_of(server)
    ready = await server.ready("api.example.com")
    waiting = await server.order("www.example.com")
    assert server.kid is not None
    assert (await server.post(server.kid, {"status": "deactivated"})).json["status"] == "deactivated"  # M102
    for url in [*urls, waiting.json["authorizations"][0], f"{server.base}/new-order", f"{server.base}/directory"]:
        refused = await server.post(url)
        assert (refused.status, refused.problem["type"]) == (401, "unauthorized"), url  # M103, SEC07
    assert (await server.register()).status == 401
    assert (await server.finalize(ready)).status == 401
    refused = await other.post(ready.location)  # by a replica that has never seen the account
    assert refused.status == 401


@pytest.mark.requirement("M103", "SEC07", "SEC56")
async def test_a_replica_whose_memory_is_old_issues_nothing_to_a_deactivated_account(
    server: Server, other: Server
) -> None:
    order = await server.ready()
    assert (await other.post(order.location)).json["status"] == "ready"  # so the other one remembers the account
    assert server.kid is not None
    await server.post(server.kid, {"status": "deactivated"})
    refused = await other.finalize(order)
    assert (refused.status, refused.problem["type"]) == (401, "unauthorized")


@pytest.mark.requirement("S104", "SEC07")
async def test_a_challenge_that_completes_after_the_deactivation_proves_nothing(server: Server) -> None:
    gate = server.world.validator.gate = asyncio.Event()
    order = await server.order()
    (url,) = order.json["authorizations"]
    (challenge,) = (await server.post(url)).json["challenges"]
    await server.post(challenge["url"], {})
    assert server.kid is not None
    await server.post(server.kid, {"status": "deactivated"})
    gate.set()
    await server.world.services.worker.drain(5)
    (stored,) = [each for (plural, _, _), each in server.world.api.store.by_key.items() if plural == "acmeorders"]
    assert stored["status"]["state"] == "invalid"


@pytest.mark.requirement("SEC37")
async def test_accounts_that_are_not_there_cost_one_read_and_bad_signatures_none(server: Server) -> None:
    before = len(server.world.api.requests)
    await server.post(f"{server.base}/new-order", {}, key=ClientKey())  # signed by somebody else
    await server.post(f"{server.base}/new-order", {}, kid=f"{server.base}/accounts/../{'a' * 52}")
    await server.get(f"{server.base}/directory")
    await server.get(f"{server.base}/new-nonce")
    assert server.world.calls(before) == []  # SEC37
    await server.post(f"{server.base}/new-order", {}, kid=f"{server.base}/accounts/{'a' * 52}")
    assert server.world.calls(before) == ["get acmeaccounts"]


@pytest.mark.requirement("M34", "M35", "SEC19", "SEC20")
async def test_of_a_hundred_requests_with_one_nonce_one_is_answered(server: Server, other: Server) -> None:
    nonce, url = server.nonces.issue(), f"{server.base}/directory"
    body = signed(server.key, b"", kid=server.kid, nonce=nonce, url=url)
    answers = await asyncio.gather(
        *(server.post(url, body=body, at=(server, other)[number % 2]) for number in range(100))
    )
    assert sorted(each.status for each in answers) == [200] + [400] * 99  # SEC19
    for refused in answers:
        if refused.status == 400:
            assert refused.problem["type"] == "badNonce"
            assert (await server.post(url, nonce=refused.headers["Replay-Nonce"])).status == 200  # SEC20, M35
            break


@pytest.mark.requirement("SEC15")
async def test_what_a_client_says_about_hosts_changes_no_url(server: Server) -> None:
    answer = await server.http.get(
        "/acme/pki/web/directory",
        headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"},
    )
    assert "evil" not in await answer.text()  # SEC15
    assert (await answer.json())["newOrder"] == f"{EXTERNAL_URL}/acme/pki/web/new-order"


@pytest.mark.requirement("M113")
async def test_an_order_waits_for_every_authorization_and_a_csr_does_not_skip_one(server: Server) -> None:
    server.world.validator.failures["b.example.com"] = wrong()
    order = await server.order("a.example.com", "b.example.com")
    first = (await server.post(order.json["authorizations"][0])).json["challenges"][0]
    await server.post(first["url"], {})
    refused = await server.finalize(order, pki.csr("a.example.com"))
    assert (refused.status, refused.problem["type"]) == (403, "orderNotReady")  # M113
