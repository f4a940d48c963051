"""Accounts over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kms.resources.kinds import ACCOUNTS
from tests.support.acme import EXTERNAL_URL, ClientKey, binding
from tests.support.domain import KEY_ID_1, NAMESPACE
from tests.support.server import Answer, Server, running_server

NEW_ACCOUNT = f"{EXTERNAL_URL}/acme/pki/web/new-account"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server whose profile `web` requires bindings, with one credential for it."""
    async with running_server(lambda world: world.configure(external_account_binding="Required")) as running:
        running.world.put_credential()
        yield running


def bound(key: ClientKey, *, url: str = NEW_ACCOUNT, **changes: Any) -> dict[str, Any]:
    return {"externalAccountBinding": binding(key, url=url, **{"kid": KEY_ID_1, **changes})}


def accounts(server: Server) -> list[str]:
    return [name for plural, _, name in server.world.api.store.by_key if plural == ACCOUNTS.plural]


@pytest.mark.requirement("M53", "M75", "M93")
async def test_a_new_account_is_created_with_its_url(server: Server) -> None:
    answer = await server.register(contact=["mailto:a@example.com"], **bound(server.key))
    assert answer.status == 201
    assert answer.json == {
        "status": "valid",
        "contact": ["mailto:a@example.com"],
        "orders": f"{answer.location}/orders",
    }
    assert answer.location.startswith(f"{EXTERNAL_URL}/acme/pki/web/accounts/")
    stored = server.world.api.read(ACCOUNTS, NAMESPACE, answer.location.rpartition("/")[2])
    assert stored is not None
    assert stored.spec.external_account is not None
    assert (stored.spec.external_account.key_id, stored.spec.external_account.name) == (KEY_ID_1, "cred")


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
async def test_a_known_key_is_told_its_account_whatever_else_it_says(server: Server, payload: Any) -> None:
    kid = (await server.register(**bound(server.key))).location
    before = len(server.world.api.requests)
    answer = await server.register(**payload)
    assert (answer.status, answer.location) == (200, kid)
    assert answer.json == {"status": "valid", "orders": f"{kid}/orders"}
    assert server.world.calls(before) == []


@pytest.mark.requirement("M77")
async def test_an_unknown_key_that_only_asks_gets_no_account(server: Server) -> None:
    answer = await server.register(onlyReturnExisting=True, **bound(server.key))
    assert (answer.status, answer.problem["type"]) == (400, "accountDoesNotExist")
    assert accounts(server) == []


@pytest.mark.requirement("SEC12c", "SEC49")
async def test_a_credential_of_one_profile_does_not_open_accounts_on_another(server: Server) -> None:
    server.world.lend("open")
    url = NEW_ACCOUNT.replace("web", "open")
    answer = await server.post(url, bound(server.key, url=url), jwk=server.key.jwk)
    assert (answer.status, answer.problem["type"]) == (403, "unauthorized")


@pytest.mark.requirement("M90", "M94")
async def test_an_optional_binding_is_verified_when_it_is_there(server: Server) -> None:
    server.world.configure(external_account_binding="Optional")
    answer = await server.register(externalAccountBinding={"protected": "e30"})
    assert (answer.status, answer.problem["type"]) == (400, "malformed")
    assert (await server.register()).status == 201


@pytest.mark.requirement("M94")
async def test_where_bindings_are_disabled_they_are_dropped(server: Server) -> None:
    server.world.configure(external_account_binding="Disabled")
    before = len(server.world.api.requests)
    assert (await server.register(externalAccountBinding={"protected": "nonsense"})).status == 201
    assert "get secrets" not in server.world.calls(before)


@pytest.mark.requirement("M20")
async def test_another_key_than_the_one_that_signed_is_refused(server: Server) -> None:
    answer = await server.post(NEW_ACCOUNT, {}, jwk=ClientKey().jwk)
    assert (answer.status, answer.problem["type"]) == (400, "malformed")


@pytest.mark.requirement("M84", "M102")
async def test_an_account_is_read_changed_and_deactivated(server: Server) -> None:
    kid = server.kid = server.opened()
    assert (await server.post(kid)).json["status"] == "valid"
    changed = await server.post(kid, {"contact": ["mailto:b@example.com"]})
    assert (changed.json["contact"], changed.location) == (["mailto:b@example.com"], kid)
    ended = await server.post(kid, {"status": "deactivated"})
    assert (ended.status, ended.json["status"]) == (200, "deactivated")
    assert (await server.post(kid)).status == 401


@pytest.mark.requirement("M26", "M55")
async def test_the_orders_of_an_account_are_listed_to_it_alone(server: Server) -> None:
    async def orders(key: ClientKey) -> list[Answer]:
        server.key, server.kid = key, server.opened(key)
        return [await server.order(f"{number}.example.com") for number in range(2)]

    await orders(ClientKey())
    mine = await orders(ClientKey())
    answer = await server.post(f"{server.kid}/orders")
    assert set(answer.json["orders"]) == {each.location for each in mine}
    assert (await server.post(f"{server.kid}/orders", {})).status == 400


async def test_the_agreement_to_the_terms_is_shown(server: Server) -> None:
    server.world.configure(external_account_binding="Disabled", terms_of_service="https://example.com/tos")
    answer = await server.register(termsOfServiceAgreed=True)
    assert (await server.post(answer.location)).json["termsOfServiceAgreed"] is True
