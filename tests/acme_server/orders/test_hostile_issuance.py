"""CAs that lie, servers that lose writes, and statuses that somebody has changed, on a fake API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace as replace_dataclass
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from acme_server.orders.issuance_waiting import Schedule
from kms.issuers.protocol import Answer, Returned, Submission
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS, ORDERS
from kms.resources.meta import condition, key_of
from kms.resources.orders import ACMEOrder, Claim
from tests.support import pki
from tests.support.domain import World, running_world
from tests.support.eventually import until
from tests.support.scripted_issuer import WAITS, ScriptedIssuer, certified

AT_ONCE = Schedule(after_failures=(timedelta(0), timedelta(0)), shortest=timedelta(0), longest=timedelta(0))


def configure(world: World) -> None:
    world.issuer = ScriptedIssuer([WAITS], takes_revocations=True)
    world.schedule = AT_ONCE
    world.install_external("Vault", timeout="10m")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world(configure) as world:
        world.services.state.account_index.mark_complete()
        yield world


def ca(world: World) -> ScriptedIssuer:
    assert world.issuer is not None
    return world.issuer


async def waiting_order(world: World, account: ACMEAccount) -> ACMEOrder:
    return await world.finalized(account, await world.proven(account))


async def ended(world: World, order: ACMEOrder) -> ACMEOrder:
    await until(lambda: world.stored(order).status.state != "processing", seconds=10)
    await until(lambda: not world.services.issuance.is_working_at(key_of(order)), seconds=10)
    return world.stored(order)


async def taken_over(world: World, order: ACMEOrder, **changes: Any) -> None:
    """Let the server die, change what the order says of the attempt, and let another one begin when time is over."""
    await world.services.issuance.drain(0)
    stored = world.stored(order)
    assert stored.status.issuance is not None
    accepted = changes.pop("accepted", stored.status.accepted)
    issuance = replace(stored.status.issuance, **changes)
    world.api.put(ORDERS, replace(stored, status=replace(stored.status, issuance=issuance, accepted=accepted)))
    world.start()
    world.clock.ahead = timedelta(minutes=10, seconds=31)


@pytest.mark.requirement("X40", "SEC34")
@pytest.mark.parametrize("what", ["claim", "notBefore", "accepted"])
async def test_no_order_waits_beyond_its_time_for_what_lies_in_the_future(
    world: World, account: ACMEAccount, what: str
) -> None:
    """The clock of another server may be ahead, or somebody has changed the status."""
    order = await waiting_order(world, account)
    later = world.clock() + timedelta(days=30)
    if what == "claim":
        await taken_over(world, order, claim=Claim(replica="server-9/any", time=later))
    elif what == "accepted":
        await taken_over(world, order, accepted=later)
    else:
        await taken_over(world, order, not_before=later)
    await world.services.orders.finish(key_of(order))
    found = condition((await ended(world, order)).status.conditions, "Ready")
    assert found is not None
    assert found.reason == "IssuerTimeout"


@pytest.mark.requirement("X36")
async def test_what_another_key_has_is_not_revoked(world: World, account: ACMEAccount) -> None:
    """A proxy that confuses answers returns the valid certificate of somebody else."""

    def of_somebody_else(submission: Submission) -> Answer:
        other = pki.csr("www.example.com", signed_with=pki.key(which="other"))
        return certified(replace_dataclass(submission, request=other))

    ca(world).script = [of_somebody_else]
    stored = await ended(world, await waiting_order(world, account))
    assert (stored.status.state, ca(world).revoked) == ("invalid", [])


@pytest.mark.requirement("X36", "X62")
async def test_the_certificate_of_an_order_that_is_deleted_meanwhile_is_revoked(
    world: World, account: ACMEAccount
) -> None:
    order = await waiting_order(world, account)

    def deleting(submission: Submission) -> Answer:
        world.api.remove(ORDERS, *key_of(order))
        return certified(submission)

    ca(world).script = [deleting]
    await until(lambda: not world.services.issuance.is_working_at(key_of(order)), seconds=10)
    assert len(ca(world).revoked) == 1


@pytest.mark.requirement("X36", "X62")
async def test_a_certificate_that_the_order_has_is_not_revoked(world: World, account: ACMEAccount) -> None:
    """The answer to the write was lost, this replica knows the order as it was before, and the account has ended."""
    order = await waiting_order(world, account)

    def stored_already(submission: Submission) -> Answer:
        answer, stored = certified(submission), world.stored(order)
        assert isinstance(answer, Returned)
        world.api.put(
            ORDERS, replace(stored, status=replace(stored.status, state="valid", certificate=answer.pem.decode()))
        )
        blocked = world.api.read(ACCOUNTS, *key_of(account))
        assert blocked is not None
        gone = replace(blocked, status=replace(blocked.status, state="deactivated", deactivated_at=world.clock()))
        world.services.state.accounts.apply_event(world.api.put(ACCOUNTS, gone), False)
        return answer

    ca(world).script = [stored_already]
    stored = await ended(world, order)
    assert (stored.status.state, ca(world).revoked) == ("valid", [])
