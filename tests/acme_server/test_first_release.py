"""Accounts and orders that the first release has stored: they can be read, and orders begun then end now."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from kms.resources.kinds import AUTHORITIES, CREDENTIALS, POLICIES, PROFILES, SECRETS, Kind
from tests.support.acme import ClientKey, b64, signed
from tests.support.apiobjects import ObjectKey
from tests.support.domain import World
from tests.support.eventually import in_background, until
from tests.support.server import Answer, Server, running_server

STORED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "support" / "first_release" / "server.json").read_text()
)
"""What its server stored for a client with a credential, and what it was configured with; `now` is shortly after."""
NOW = datetime.fromisoformat(STORED["now"])
ACCOUNTS: dict[str, str] = STORED["accounts"]
ORDERS: dict[str, str] = STORED["orders"]
"""URLs by what became of the account or the order."""
CONFIGURED: dict[str, Kind[Any]] = {
    "profiles": PROFILES,
    "policies": POLICIES,
    "authorities": AUTHORITIES,
    "credentials": CREDENTIALS,
    "secrets": SECRETS,
}


def upgrade(world: World) -> None:
    """Put the objects into the API server, and the configuration into the caches."""
    world.clock.ahead = NOW - datetime.now(UTC).replace(microsecond=0)
    world.offered = ("http-01", "dns-01", "tls-alpn-01")
    for each in copy.deepcopy(STORED["objects"]):
        metadata = each["object"]["metadata"]
        world.api.store.by_key[ObjectKey(each["plural"], metadata["namespace"], metadata["name"])] = each["object"]
    world.api.store.version = 10_000
    for each in STORED["configuration"]:
        kind = CONFIGURED[each["plural"]]
        getattr(world, each["plural"]).put(msgspec.convert(each["object"], kind.model))


def key(name: str) -> ClientKey:
    """The key of an account."""
    return ClientKey(private=load_pem_private_key(base64.b64decode(STORED["keys"][name]), None))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server of today whose client has the account of then."""
    async with running_server() as running:
        upgrade(running.world)
        running.world.start()
        running.key, running.kid = key("first"), ACCOUNTS["first"]
        yield running


async def prove(server: Server, order: Answer) -> None:
    """Respond to a challenge of each authorization that is pending."""
    for url in order.json["authorizations"]:
        authorization = await server.post(url)
        if authorization.json["status"] == "pending":
            await server.post(authorization.json["challenges"][0]["url"], {})


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("pending", "pending"),
        ("part", "pending"),
        ("ready", "ready"),
        ("reused_ready", "ready"),
        ("reused_mixed", "pending"),
        ("valid", "valid"),
        ("revoked", "valid"),
        ("invalid", "invalid"),
    ],
)
async def test_orders_are_read(server: Server, name: str, status: str) -> None:
    order = await server.post(ORDERS[name])
    assert order.json["status"] == status
    for url in order.json["authorizations"]:
        assert (await server.post(url)).status == 200


@pytest.mark.parametrize("name", ["pending", "part", "ready", "reused_ready", "reused_mixed", "challenge_processing"])
async def test_orders_begun_then_end_now(server: Server, name: str) -> None:
    await prove(server, await server.post(ORDERS[name]))
    answer = await server.finalize(await server.post(ORDERS[name]))
    assert answer.json["status"] == "valid", answer.text
    assert (await server.post(answer.json["certificate"])).status == 200


async def test_an_order_that_was_processing_gets_its_certificate(server: Server) -> None:
    assert (await server.post(ORDERS["processing"])).json["status"] == "valid"


async def test_an_authorization_before_any_order_can_be_proven(server: Server) -> None:
    authorization = await server.post(ORDERS["preauth"])
    assert authorization.json["status"] == "pending"
    await server.post(authorization.json["challenges"][0]["url"], {})
    assert (await server.post(ORDERS["preauth"])).json["status"] == "valid"


async def test_certificates_are_revoked(server: Server) -> None:
    certificate = await server.certificate(await server.post(ORDERS["valid"]))
    payload = {"certificate": b64(certificate.public_bytes(Encoding.DER)), "reason": 4}
    assert (await server.post(f"{server.base}/revoke-cert", payload)).status == 200


async def test_certificates_are_served_with_the_chain_that_is_in_their_order(server: Server) -> None:
    chains = server.world.services.state.chains
    async with in_background(chains.run()):
        await until(chains.synced.is_set)
        for name in ("valid", "revoked"):
            order = await server.post(ORDERS[name])
            stored = server.world.api.store.by_key[ObjectKey("acmeorders", "pki", ORDERS[name].rpartition("/")[2])]
            answer = await server.post(order.json["certificate"])
            assert answer.text == stored["status"]["certificate"]


async def test_accounts_go_on(server: Server) -> None:
    found = await server.post(f"{server.base}/new-account", {"onlyReturnExisting": True}, jwk=server.key.jwk)
    assert (found.status, found.location) == (200, ACCOUNTS["first"])
    updated = await server.post(ACCOUNTS["first"], {"contact": ["mailto:b@example.com"]})
    assert updated.json["contact"] == ["mailto:b@example.com"]
    new, url = ClientKey(), f"{server.base}/key-change"
    inner = json.dumps({"account": server.kid, "oldKey": server.key.jwk}).encode()
    changed = await server.post(url, json.loads(signed(new, inner, url=url, jwk=new.jwk)))
    assert changed.status == 200, changed.text


async def test_keys_that_were_changed_and_accounts_that_were_deactivated_stay_so(server: Server) -> None:
    changed, kid = key("changed"), ACCOUNTS["changed"]
    assert (await server.post(kid, key=changed, kid=kid)).json["contact"] == ["mailto:a@example.com"]
    assert (await server.post(kid, key=key("replaced"), kid=kid)).status == 400
    found = await server.post(f"{server.base}/new-account", {}, key=changed, jwk=changed.jwk)
    assert (found.status, found.location) == (200, kid)
    gone = key("deactivated")
    for url, header in ((ACCOUNTS["deactivated"], {"kid": ACCOUNTS["deactivated"]}), ("", {"jwk": gone.jwk})):
        answer = await server.post(url or f"{server.base}/new-account", {}, key=gone, **header)
        assert answer.status == 401
