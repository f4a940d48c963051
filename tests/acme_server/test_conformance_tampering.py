"""Resources that somebody has written past the schema: the server refuses or waits, and never falls through (SEC02)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.server import Server


def tamper(server: Server, plural: str, **status: Any) -> None:
    """Change the status of every object of the kind in the cluster, and begin a new life of the server."""
    store = server.world.api.store
    for key, stored in tuple(store.by_key.items()):
        if key[0] == plural:
            stored["status"] = stored.get("status", {}) | status
    server.world.services.state.orders.clear()
    server.world.services.state.accounts.clear()


@pytest.mark.requirement("SEC02", "SEC58")
@pytest.mark.parametrize("state", ["approved", "VALID", "", 7, None])
async def test_an_order_in_a_state_that_nobody_knows_issues_nothing(server: Server, state: Any) -> None:
    order = await server.ready()
    tamper(server, "acmeorders", state=state)
    for answer in (await server.post(order.location), await server.finalize(order)):
        assert answer.status >= 400 or answer.json["status"] in {"pending", "ready"}
        assert "certificate" not in answer.json


@pytest.mark.requirement("SEC02", "SEC58")
@pytest.mark.parametrize("state", ["trusted", "VALID", 1])
async def test_an_account_in_a_state_that_nobody_knows_may_do_nothing(server: Server, state: Any) -> None:
    tamper(server, "acmeaccounts", state=state)
    answer = await server.order()
    assert answer.status >= 400
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.requirement("SEC58")
async def test_an_order_that_claims_to_be_ready_without_proofs_issues_nothing(server: Server) -> None:
    order = await server.order()
    tamper(server, "acmeorders", state="ready")
    refused = await server.finalize(order)
    assert (refused.status, refused.problem["type"]) == (403, "orderNotReady")
