"""Who may do what, on the whole server and across replicas (SEC01 to SEC08, SEC19, SEC20, SEC37)."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import pki
from tests.support.acme import EXTERNAL_URL, MAC_KEY, ClientKey, binding, signed
from tests.support.domain import KEY_ID_1, wrong
from tests.support.server import Answer, Server


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
        authorization,
        challenge["url"],
        server.kid,
        f"{server.kid}/orders",
    ]


def without_nonce(answer: Answer) -> tuple[int, dict[str, str], str]:
    return (
        answer.status,
        {name: value for name, value in answer.headers.items() if name not in {"Replay-Nonce", "Date"}},
        answer.text,
    )


@pytest.mark.requirement("SEC03")
async def test_objects_of_others_answer_like_objects_that_do_not_exist(server: Server) -> None:
    mine = await urls_of(server)
    orders = mine[0].rsplit("/", 1)[1]
    server.key = ClientKey()
    await server.register()
    for url in mine[:5]:
        missing = url.replace(orders, "a" * len(orders))
        foreign, unknown = await server.post(url, {"csr": ""}), await server.post(missing, {"csr": ""})
        assert foreign.status == 404
        assert without_nonce(foreign) == without_nonce(unknown)  # SEC03
    for url in mine[5:]:
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


@pytest.mark.requirement("SEC12")
async def test_parallel_requests_for_a_credential_with_one_place_open_one_account(
    server: Server, other: Server
) -> None:
    server.world.configure(external_account_binding="Required")
    server.world.put_credential(maximum_accounts=1)
    url = f"{server.base}/new-account"

    async def ask(number: int) -> Answer:
        key = ClientKey()
        members = {"externalAccountBinding": binding(key, url=url, mac_key=MAC_KEY, kid=KEY_ID_1)}
        return await server.post(url, members, key=key, jwk=key.jwk, at=(server, other)[number % 2])

    answers = await asyncio.gather(*(ask(number) for number in range(12)))
    assert [each.status for each in answers].count(201) == 1, [each.text for each in answers]  # SEC12
    assert {each.status for each in answers} <= {201, 403, 503}
    accounts = [name for plural, _, name in server.world.api.store.by_key if plural == "acmeaccounts"]
    assert len(accounts) == 2  # the client's own, and that one


@pytest.mark.requirement("M87", "SEC10")
async def test_the_directory_says_whether_a_binding_is_needed_and_it_is(server: Server) -> None:
    for mode in ("Required", "Optional", "Disabled"):
        server.world.configure(external_account_binding=mode)
        required = (await server.get(f"{server.base}/directory")).json["meta"]["externalAccountRequired"]
        answer = await server.register(ClientKey())
        assert required == (mode == "Required")  # SEC10, M87
        assert answer.status == (403 if required else 201)


@pytest.mark.requirement("SEC09")
async def test_unknown_key_identifiers_and_wrong_macs_are_answered_alike(server: Server) -> None:
    server.world.configure(external_account_binding="Required")
    server.world.put_credential()
    url = f"{server.base}/new-account"
    answers = []
    for kid, mac_key in ((KEY_ID_1, b"w" * 32), ("nobody", MAC_KEY)):
        key = ClientKey()
        bound = binding(key, url=url, mac_key=mac_key, kid=kid)
        answers.append(without_nonce(await server.register(key, externalAccountBinding=bound)))
    assert answers[0] == answers[1]  # SEC09


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
