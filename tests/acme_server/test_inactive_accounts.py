"""What an account may still do that is suspended, or whose EABCredential is suspended or gone: on every route.

It may read what it has, give up, and revoke its own certificates. It obtains, proves and changes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.accounts.credential_records import with_record
from acme_server.accounts.transitions import resumed, suspended
from acme_server.model import ChallengeId
from acme_server.orders import transitions
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS, ORDERS
from kms.resources.orders import ACMEOrder
from tests.acme_server.api.test_routes import SIGNED
from tests.support import pki
from tests.support.acme import ClientKey, b64, binding, signed
from tests.support.domain import KEY_ID_1, NAMESPACE, World
from tests.support.server import Answer, Server, running_replica, running_server

REFUSED = (403, "unauthorized")


@dataclass
class Member:
    """A client with a credential, and what it had before it was stopped."""

    server: Server
    own: bytes
    foreign: bytes
    valid: Answer
    ready: Answer
    pending: Answer

    @property
    def world(self) -> World:
        return self.server.world

    @property
    def challenge(self) -> str:
        """Not read: reading it would resume what a server that died might have been asked."""
        return f"{self.pending.json['authorizations'][0]}/challenges/http-01"

    async def post(self, path: str, payload: Any = None, **header: Any) -> Answer:
        return await self.server.post(path, payload, **header)

    def stored(self, order: Answer) -> ACMEOrder:
        found = self.world.api.read(ORDERS, NAMESPACE, order.location.rpartition("/")[2])
        assert found is not None
        return found

    async def revokes(self, der: bytes, **header: Any) -> Answer:
        return await self.post(f"{self.server.base}/revoke-cert", {"certificate": b64(der)}, **header)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server(
        lambda world: world.configure(external_account_binding="Required", pre_authorization="Enabled")
    ) as running:
        running.world.services.state.order_index.mark_complete()
        yield running


async def enroll(server: Server) -> Server:
    """A client with a key of its own, whose account is bound to the credential `team/cred`."""
    client = replace(server, key=ClientKey(), kid=None)
    members = binding(client.key, url=f"{server.base}/new-account", kid=KEY_ID_1)
    assert (await client.register(externalAccountBinding=members)).status == 201
    return client


async def der_of(client: Server, order: Answer) -> bytes:
    return (await client.certificate(order)).public_bytes(Encoding.DER)


@pytest.fixture
async def member(server: Server) -> Member:
    server.world.put_credential()
    client, other = await enroll(server), await enroll(server)
    own = await client.finalize(await client.ready("own.example.com"), pki.csr("own.example.com"))
    shared = await other.finalize(await other.ready("shared.example.com"), pki.csr("shared.example.com"))
    await client.ready("shared.example.com")  # its proof lets it revoke the certificate of the other account
    ready, pending = await client.ready("ready.example.com"), await client.order("pending.example.com")
    mine, theirs = await der_of(client, own), await der_of(other, shared)
    return Member(client, mine, theirs, own, ready, pending)


def change(member: Member, transition: Callable[[ACMEAccount], ACMEAccount]) -> None:
    """Write the account as another program, and let the watch tell it."""
    name = (member.server.kid or "").rpartition("/")[2]
    known = member.world.api.read(ACCOUNTS, NAMESPACE, name)
    assert known is not None
    written = member.world.api.put(ACCOUNTS, transition(known))
    member.world.services.state.accounts.apply_event(written, False)


def suspend_credential(member: Member) -> None:
    member.world.change_credential(suspended=True)


def delete_credential(member: Member) -> None:
    """Some time ago, as the record of the account says."""
    member.world.remove_credential()
    change(member, partial(with_record, credential=None, now=member.world.clock() - timedelta(minutes=2)))


def delete_suspended_credential(member: Member) -> None:
    now = member.world.clock()
    change(member, partial(with_record, credential=member.world.change_credential(suspended=True), now=now))
    member.world.remove_credential()


def suspend_account(member: Member) -> None:
    """As `kms-acme account suspend` does."""
    change(member, partial(suspended, now=member.world.clock()))


WAYS = {
    "it is suspended": suspend_account,
    "its credential is suspended": suspend_credential,
    "its credential is deleted": delete_credential,
    "its suspended credential is deleted": delete_suspended_credential,
}


async def changes_key(member: Member) -> Answer:
    new, url = ClientKey(), f"{member.server.base}/key-change"
    inner = {"account": member.server.kid, "oldKey": member.server.key.jwk}
    return await member.post(url, signed(new, json.dumps(inner).encode(), jwk=new.jwk, url=url))


def identifier(name: str) -> dict[str, str]:
    return {"type": "dns", "value": name}


Act = Callable[[Member], Awaitable[Answer]]

# (path of test_routes, what the client does there): whether it is done.
TABLE: dict[tuple[str, str], tuple[Act, bool]] = {
    ("directory", "read"): (lambda m: m.post(f"{m.server.base}/directory"), True),
    ("new-nonce", "read"): (lambda m: m.post(f"{m.server.base}/new-nonce"), True),
    ("new-account", "find the account"): (lambda m: m.server.register(onlyReturnExisting=True), True),
    ("accounts/{account}", "read"): (lambda m: m.post(m.server.kid or ""), True),
    ("accounts/{account}/orders", "read"): (lambda m: m.post(f"{m.server.kid}/orders"), True),
    ("orders/{order}", "read"): (lambda m: m.post(m.ready.location), True),
    ("authorizations/{order}-{position}", "read"): (lambda m: m.post(m.ready.json["authorizations"][0]), True),
    ("authorizations/{order}-{position}/challenges/{type}", "read"): (lambda m: m.post(m.challenge), True),
    ("orders/{order}/certificate", "download"): (lambda m: m.post(m.valid.json["certificate"]), True),
    ("new-order", "order"): (lambda m: m.server.order("more.example.com"), False),
    ("new-authz", "order an authorization"): (
        lambda m: m.post(f"{m.server.base}/new-authz", {"identifier": identifier("more.example.com")}),
        False,
    ),
    ("authorizations/{order}-{position}/challenges/{type}", "respond"): (lambda m: m.post(m.challenge, {}), False),
    ("orders/{order}/finalize", "finalize"): (lambda m: m.server.finalize(m.ready), False),
    ("accounts/{account}", "change the contact"): (
        lambda m: m.post(m.server.kid or "", {"contact": ["mailto:a@example.com"]}),
        False,
    ),
    ("revoke-cert", "revoke a certificate of another account"): (lambda m: m.revokes(m.foreign), False),
    ("key-change", "change the key"): (changes_key, False),
    ("revoke-cert", "revoke its own certificate"): (lambda m: m.revokes(m.own), True),
    ("authorizations/{order}-{position}", "give up"): (
        lambda m: m.post(m.ready.json["authorizations"][0], {"status": "deactivated"}),
        True,
    ),
    ("accounts/{account}", "give up"): (lambda m: m.post(m.server.kid or "", {"status": "deactivated"}), True),
}
ELSEWHERE = {"accounts/{account}/orders/{cursor}", "orders/{order}/certificate/{chain}"}
"""Further pages and chains: the handlers of the first ones."""


def test_the_table_has_every_route_for_accounts() -> None:
    assert {path for path, _ in TABLE} | ELSEWHERE == set(SIGNED)


@pytest.mark.requirement("SEC07", "SEC77")
@pytest.mark.parametrize("stop", WAYS.values(), ids=WAYS.keys())
async def test_an_account_that_is_stopped_reads_gives_up_and_does_nothing_else(
    member: Member, stop: Callable[[Member], None]
) -> None:
    stop(member)
    found = {action: await act(member) for action, (act, _) in TABLE.items()}
    wanted = {action: done for action, (_, done) in TABLE.items()}
    assert {action: answer.status in {200, 201, 204} for action, answer in found.items()} == wanted
    for action, answer in found.items():
        if not wanted[action]:
            assert (answer.status, answer.problem["type"]) == REFUSED, action
            assert "team/cred" in answer.problem["detail"] or "suspended" in answer.problem["detail"], action


@pytest.mark.requirement("SEC56", "SEC77")
async def test_an_account_that_was_resumed_a_moment_ago_acts_on_a_server_that_has_not_heard_of_it(
    member: Member,
) -> None:
    name = (member.server.kid or "").rpartition("/")[2]
    for (path, what), (act, done) in TABLE.items():
        if done:
            continue
        suspend_account(member)
        world = member.world.another()
        for order in (world.api.read(ORDERS, *key) for key in world.stored_orders()):
            assert order is not None
            world.services.state.order_index.update(order, False)
        stopped = await world.services.accounts.by_id(world.profile, name)
        assert stopped is not None
        member.world.api.put(ACCOUNTS, resumed(stopped, now=world.clock()))
        async with running_replica(world, member.server.nonces) as behind:
            client = replace(behind, key=member.server.key, kid=member.server.kid)
            answer = await act(replace(member, server=client))
        assert answer.status in {200, 201}, (path, what, answer.text)
        await world.services.worker.drain(2)


@pytest.mark.requirement("SEC77")
async def test_an_account_whose_credential_was_deleted_a_moment_ago_is_asked_to_come_again(member: Member) -> None:
    member.world.remove_credential()
    for (path, what), (act, done) in TABLE.items():
        answer = await act(member)
        assert (answer.status in {200, 201, 204}) is done, (path, what)
        if not done:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "10"), (path, what)


@pytest.mark.requirement("SEC07", "SEC77")
@pytest.mark.parametrize("stop", WAYS.values(), ids=WAYS.keys())
async def test_a_validation_in_flight_proves_nothing_for_an_account_that_is_stopped(
    member: Member, stop: Callable[[Member], None]
) -> None:
    gate = member.world.validator.gate = asyncio.Event()
    assert (await member.post(member.challenge, {})).json["status"] == "processing"
    stop(member)
    gate.set()
    await member.world.services.worker.drain(5)
    stored = member.stored(member.pending)
    (challenge,) = stored.status.authorizations[0].challenges
    assert (stored.status.state, challenge.state) == ("invalid", "invalid")
    assert challenge.error is not None
    assert challenge.error.type == "unauthorized"


@pytest.mark.requirement("SEC07", "SEC77")
@pytest.mark.parametrize("stop", WAYS.values(), ids=WAYS.keys())
async def test_an_order_in_processing_is_not_issued_to_an_account_that_is_stopped(
    member: Member, stop: Callable[[Member], None]
) -> None:
    csr = pki.csr("ready.example.com")
    accept = partial(
        transitions.accepted, request=csr, digest=hashlib.sha256(csr).hexdigest(), now=member.world.clock()
    )
    await member.world.services.state.orders.change(member.stored(member.ready), accept)
    stop(member)
    polled = await member.post(member.ready.location)
    assert (polled.status, polled.json["status"]) == (200, "invalid")
    assert polled.json["error"]["type"].endswith(":unauthorized")


@pytest.mark.requirement("SEC07", "SEC77")
@pytest.mark.parametrize("stop", WAYS.values(), ids=WAYS.keys())
async def test_reading_an_order_starts_no_validation_for_an_account_that_is_stopped(
    member: Member, stop: Callable[[Member], None]
) -> None:
    lost = {ChallengeId(0, "http-01"): None}
    begin = partial(transitions.begun, running=lost, attempt="gone/1", now=member.world.clock() - timedelta(hours=1))
    await member.world.services.state.orders.change(member.stored(member.pending), begin)
    stop(member)
    asked = len(member.world.validator.asked)
    assert (await member.post(member.pending.location)).status == 200
    await member.world.services.worker.drain(5)
    assert len(member.world.validator.asked) == asked
