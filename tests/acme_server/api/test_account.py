from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientResponse
from msgspec.structs import replace

from acme_server.accounts.eab_credentials import Binding
from tests.support.acme import EXTERNAL_URL, KEY_ID, ClientKey, Edge, binding, problem_of, profile, running_edge

NEW_ACCOUNT = "/acme/pki/web/new-account"
URL = EXTERNAL_URL + NEW_ACCOUNT


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge() as running:
        yield running


async def new_account(
    edge: Edge, payload: Any, key: ClientKey | None = None, path: str = NEW_ACCOUNT
) -> ClientResponse:
    key = key or edge.key
    return await edge.post(path, payload, key=key, jwk=key.jwk)


@pytest.mark.requirement("M53", "M75")
async def test_a_new_account_is_created_with_its_url(edge: Edge) -> None:
    eab = binding(edge.key, url=URL)
    answer = await new_account(edge, {"contact": ["mailto:a@example.com"], "externalAccountBinding": eab})
    account = await answer.json()
    assert answer.status == 201
    assert account == {
        "status": "valid",
        "contact": ["mailto:a@example.com"],
        "orders": answer.headers["Location"] + "/orders",
    }
    assert answer.headers["Location"].startswith(f"{EXTERNAL_URL}/acme/pki/web/accounts/")
    (bound,) = edge.accounts.registered
    assert isinstance(bound, Binding)
    assert (bound.key_id, bound.credential.metadata.name) == (KEY_ID, "web")


@pytest.mark.requirement("M76", "M78", "C8")
@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"onlyReturnExisting": True},
        {"externalAccountBinding": {"protected": "nonsense"}},
        {"contact": ["mailto:other@example.com"], "status": "valid", "orders": "x"},
    ],
)
async def test_a_known_key_is_told_its_account_whatever_else_it_says(edge: Edge, payload: Any) -> None:
    kid = edge.opened()
    answer = await new_account(edge, payload)
    assert (answer.status, answer.headers["Location"]) == (200, kid)
    assert await answer.json() == {"status": "valid", "orders": f"{kid}/orders"}
    assert (edge.accounts.registered, edge.credentials.asked) == ([], [])


@pytest.mark.requirement("M77")
async def test_an_unknown_key_that_only_asks_gets_no_account(edge: Edge) -> None:
    answer = await new_account(edge, {"onlyReturnExisting": True, "externalAccountBinding": binding(edge.key, url=URL)})
    assert (answer.status, (await problem_of(answer))["type"]) == (400, "accountDoesNotExist")
    assert (edge.accounts.known, edge.accounts.registered) == ({}, [])


@pytest.mark.requirement("M103", "SEC07")
async def test_the_key_of_a_deactivated_account_is_unauthorized(edge: Edge) -> None:
    edge.opened(state="deactivated")
    answer = await new_account(edge, {"onlyReturnExisting": True})
    assert (answer.status, (await problem_of(answer))["type"]) == (401, "unauthorized")


@pytest.mark.requirement("M91", "SEC09")
async def test_an_unknown_credential_and_a_wrong_mac_are_refused_alike(edge: Edge) -> None:
    wrong = [binding(edge.key, url=URL, kid="other"), binding(edge.key, url=URL, mac_key=b"x" * 32)]
    bodies = set()
    for eab in wrong:
        answer = await new_account(edge, {"externalAccountBinding": eab})
        assert (answer.status, (await problem_of(answer))["type"]) == (403, "unauthorized")
        bodies.add(await answer.read())
    assert len(bodies) == 1
    assert edge.accounts.known == {}


@pytest.mark.requirement("SEC12c", "SEC49")
async def test_a_credential_of_one_profile_does_not_open_accounts_on_another(edge: Edge) -> None:
    path = "/acme/pki/open/new-account"
    answer = await new_account(edge, {"externalAccountBinding": binding(edge.key, url=EXTERNAL_URL + path)}, path=path)
    assert (answer.status, (await problem_of(answer))["type"]) == (403, "unauthorized")


@pytest.mark.requirement("M90", "M94")
async def test_an_optional_binding_is_verified_when_it_is_there(edge: Edge) -> None:
    path = "/acme/pki/open/new-account"
    answer = await new_account(edge, {"externalAccountBinding": {"protected": "e30"}}, path=path)
    assert (answer.status, (await problem_of(answer))["type"]) == (400, "malformed")
    assert (await new_account(edge, {}, path=path)).status == 201
    assert edge.accounts.registered == [None]


@pytest.mark.requirement("M94")
async def test_where_bindings_are_disabled_they_are_dropped() -> None:
    async with running_edge(profile(external_account_binding="Disabled")) as edge:
        assert (await new_account(edge, {"externalAccountBinding": {"protected": "nonsense"}})).status == 201
        assert (edge.accounts.registered, edge.credentials.asked) == ([None], [])


@pytest.mark.requirement("M93")
async def test_the_binding_is_not_repeated_in_the_account(edge: Edge) -> None:
    answer = await new_account(edge, {"externalAccountBinding": binding(edge.key, url=URL)})
    assert "externalAccountBinding" not in await answer.json()


@pytest.mark.requirement("M22")
async def test_a_weak_key_is_refused(edge: Edge) -> None:
    answer = await edge.post(NEW_ACCOUNT, {}, jwk=edge.key.jwk | {"crv": "P-192"})
    assert (answer.status, (await problem_of(answer))["type"]) == (400, "badPublicKey")


@pytest.mark.requirement("M20")
async def test_another_key_than_the_one_that_signed_is_refused(edge: Edge) -> None:
    answer = await edge.post(NEW_ACCOUNT, {}, jwk=ClientKey().jwk)
    assert (answer.status, (await problem_of(answer))["type"]) == (400, "malformed")


@pytest.mark.requirement("S15", "C14")
@pytest.mark.parametrize("algorithm", ["ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256"])
async def test_accounts_of_every_kind_of_key_work(edge: Edge, algorithm: str) -> None:
    key = ClientKey(algorithm)
    answer = await new_account(edge, {"externalAccountBinding": binding(key, url=URL, alg="HS512")}, key)
    path = answer.headers["Location"].removeprefix(EXTERNAL_URL)
    for _ in range(2):
        assert (await edge.post(path, key=key, kid=answer.headers["Location"])).status == 200


@pytest.mark.requirement("M84", "M102")
async def test_an_account_is_read_changed_and_deactivated(edge: Edge) -> None:
    kid = edge.opened()
    path = kid.removeprefix(EXTERNAL_URL)
    assert (await (await edge.post(path, kid=kid)).json())["status"] == "valid"
    changed = await edge.post(path, {"contact": ["mailto:b@example.com"]}, kid=kid)
    assert (await changed.json())["contact"] == ["mailto:b@example.com"]
    assert changed.headers["Location"] == kid
    ended = await edge.post(path, {"status": "deactivated"}, kid=kid)
    assert (ended.status, (await ended.json())["status"]) == (200, "deactivated")
    assert (await edge.post(path, kid=kid)).status == 401


@pytest.mark.requirement("M26", "M55")
async def test_the_orders_of_an_account_are_listed_to_it_alone(edge: Edge) -> None:
    kid = edge.opened()
    account = next(iter(edge.accounts.known.values()))
    orders = [edge.orders.put(account, ["a.example.com"]).metadata.name for _ in range(2)]
    edge.orders.put(edge.accounts.put("web", ClientKey().public), ["b.example.com"])
    answer = await edge.post(f"{kid.removeprefix(EXTERNAL_URL)}/orders", kid=kid)
    assert await answer.json() == {"orders": [f"{EXTERNAL_URL}/acme/pki/web/orders/{name}" for name in orders]}
    assert (await edge.post(f"{kid.removeprefix(EXTERNAL_URL)}/orders", {}, kid=kid)).status == 400


async def test_the_agreement_to_the_terms_is_shown() -> None:
    async with running_edge(profile(external_account_binding="Disabled")) as edge:
        kid = edge.opened()
        ((key, account),) = edge.accounts.known.items()
        edge.accounts.known[key] = replace(
            account, status=replace(account.status, terms_of_service_agreed="https://example.com/tos")
        )
        answer = await edge.post(kid.removeprefix(EXTERNAL_URL), kid=kid)
        assert (await answer.json())["termsOfServiceAgreed"] is True
