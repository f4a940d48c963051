from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from datetime import timedelta

import pytest

from acme_server.api.problems import status_of
from acme_server.problems import ProblemType, Unavailable
from acme_server.validation.attempt import ValidationTiming
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS, ORDERS
from kms.resources.meta import is_true
from kms.resources.orders import ACMEOrder, ChallengeType, token_of
from tests.support import pki
from tests.support.domain import Key, World, counted, running_world, wrong
from tests.support.eventually import until
from tests.support.refusals import refusal

NAME = "www.example.com"
PATIENT = ValidationTiming(idle=5, hold=5, poll=5)


async def not_found(call: Awaitable[object]) -> None:
    assert status_of(await refusal(call)) == 404


@pytest.mark.requirement("SEC37")
@pytest.mark.parametrize("count", [1, 10])
async def test_an_issuance_costs_three_writes_and_no_reads(world: World, account: ACMEAccount, count: int) -> None:
    names = [f"host-{number}.example.com" for number in range(count)]
    before = len(world.api.requests)
    # Without the watch nothing is known for certain about account keys: one read, which the test of known keys covers.
    world.services.state.account_index.mark_complete()
    order = await world.proven(account, *names)
    assert order.status.state == "ready"
    order = await world.services.orders.get(world.caller(account), order.metadata.name)
    order = await world.finalized(account, order, pki.csr(*names))
    assert order.status.state == "valid"
    assert world.calls(before) == ["create acmeorders", "update acmeorders", "update acmeorders"]
    assert counted(world.metrics, "orders") == {("created", "pki/web"): 1, ("valid", "pki/web"): 1}
    assert counted(world.metrics, "issuance_duration_seconds") == {("internal", "signed"): 1}


async def test_an_order_tells_people_its_names_in_one_short_text(world: World, account: ACMEAccount) -> None:
    names = [f"shop-{number}.apps.example.com" for number in range(12)]
    assert (await world.order(account, *names[:2])).spec.names == "shop-0.apps.example.com, shop-1.apps.example.com"
    many = "shop-0.apps.example.com, shop-1.apps.example.com and 10 more"
    assert (await world.order(account, *names)).spec.names == many


@pytest.mark.requirement("M146", "S156", "S159", "SEC47")
async def test_a_new_order_is_pending_and_unguessable(world: World, account: ACMEAccount) -> None:
    order = await world.order(account, "B.example.com", "a.example.com", "b.EXAMPLE.com")
    assert order.status.state == "pending"
    assert [each.value for each in order.spec.identifiers] == ["b.example.com", "a.example.com"]
    assert [each.identifier for each in order.status.authorizations] == list(order.spec.identifiers)
    another = await world.order(account, "a.example.com", "b.example.com")
    tokens = {token_of(each.spec, position, "http-01") for each in (order, another) for position in (0, 1)}
    assert len(tokens) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", token or "") for token in tokens)
    assert len(order.metadata.name) == 32
    assert order.metadata.owner_references == (), "it outlives the profile"
    assert order.spec.expires - world.clock() > timedelta(hours=23)
    assert (await world.order(account)).metadata.name != order.metadata.name


@pytest.mark.requirement("M107")
async def test_a_refused_order_leaves_nothing(world: World, account: ACMEAccount) -> None:
    refused = await refusal(world.order(account, "www.example.org"))
    assert refused.type == ProblemType.REJECTED_IDENTIFIER
    assert counted(world.metrics, "orders") == {("refused", "pki/web"): 1}
    assert not [key for key in world.api.store.by_key if key.plural == ORDERS.plural]


@pytest.mark.requirement("SEC37")
async def test_a_malformed_id_costs_no_read_and_an_unknown_one_a_single_one(world: World, account: ACMEAccount) -> None:
    before = len(world.api.requests)
    await not_found(world.services.orders.get(world.caller(account), "a-b"))
    assert world.calls(before) == []
    await not_found(world.services.orders.get(world.caller(account), "a" * 32))
    assert world.calls(before) == ["get acmeorders"]


async def test_responding_writes_nothing_and_shows_the_challenge_as_processing(
    world: World, account: ACMEAccount
) -> None:
    world.validator.seconds = 0.1
    order = await world.order(account)
    before = len(world.api.requests)
    shown = await world.respond(order, 0, "http-01")
    assert shown.status.authorizations[0].challenges[0].state == "processing"
    assert world.calls(before) == []
    order = await world.services.orders.poll(order)
    assert order.status.state == "ready"
    assert world.validator.asked[0][2] == f"{token_of(order.spec, 0, 'http-01')}.{Key().thumbprint}"


@pytest.mark.requirement("M133", "SEC51")
async def test_responding_to_what_is_settled_changes_nothing(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account)
    again = await world.respond(order, 0, "http-01")
    assert again.status.authorizations[0].challenges[0].state == "valid"
    assert len(world.validator.asked) == 1


@pytest.mark.requirement("M69", "S131", "M143")
async def test_a_failed_challenge_says_why_in_challenge_and_order(world: World, account: ACMEAccount) -> None:
    world.validator.failures["b.example.com"] = wrong("http://b.example.com/ answered with status 404")
    order = await world.order(account, "a.example.com", "b.example.com")
    for position in range(2):
        await world.respond(order, position, "http-01")
    order = await world.services.orders.poll(order)
    assert order.status.state == "invalid"
    error = order.status.authorizations[1].challenges[0].error
    assert error is not None
    assert "404" in error.detail
    assert order.status.error is not None
    assert "b.example.com" in order.status.error.detail
    assert [each.state for each in order.status.authorizations] == ["valid", "invalid"]
    assert counted(world.metrics, "orders") == {("created", "pki/web"): 1, ("invalid", "pki/web"): 1}
    assert not is_true(order.status.conditions, "Ready")


async def test_a_profile_that_is_being_repaired_does_not_lose_a_proof(world: World, account: ACMEAccount) -> None:
    order = await world.order(account)
    await world.respond(order, 0, "http-01")
    world.configure(ready=False)
    assert (await world.services.orders.poll(order)).status.state == "ready"


@pytest.mark.requirement("S109")
async def test_an_order_that_expires_becomes_invalid_when_somebody_looks(world: World, account: ACMEAccount) -> None:
    order = await world.order(account)
    world.clock.ahead = timedelta(hours=24, minutes=6)
    ended = await world.services.orders.poll(order)
    assert ended.status.state == "invalid"
    assert world.stored(order).status.state == "invalid"
    shown = await world.respond(order, 0, "http-01")
    assert shown.status.state == "invalid"
    assert world.validator.asked == []


async def test_an_order_that_somebody_has_deleted_is_not_found(world: World, account: ACMEAccount) -> None:
    order = await world.order(account)
    world.api.remove(ORDERS, "pki", order.metadata.name)
    world.services.state.orders.clear()
    await not_found(world.respond(order, 0, "http-01"))
    await not_found(world.services.orders.poll(order))
    await not_found(world.finalized(account, order))


async def test_an_account_that_somebody_has_deleted_proves_nothing(world: World, account: ACMEAccount) -> None:
    order = await world.order(account)
    world.api.remove(ACCOUNTS, "pki", account.metadata.name)
    world.services.state.accounts.clear()
    await world.services.orders.respond(world.caller(account), order, 0, "http-01")
    assert (await world.services.orders.poll(order)).status.state == "invalid"


async def test_alone_a_server_answers_from_its_cache_and_with_others_it_reads(
    world: World, account: ACMEAccount
) -> None:
    order = await world.order(account)
    before = len(world.api.requests)
    await world.services.orders.poll(order)
    assert world.calls(before) == []
    world.sole_writer = False
    other = world.another()
    await other.respond(order, 0, "http-01")
    await other.services.orders.poll(order)
    assert (await world.services.orders.poll(order)).status.state == "ready"


@pytest.mark.requirement("SEC27")
async def test_two_servers_that_a_client_alternates_between_issue_one_certificate(world: World) -> None:
    world.sole_writer = False
    servers = [world, world.another()]
    account = await servers[0].account()
    assert await servers[1].services.accounts.find(world.profile, Key().thumbprint) == account
    order = await servers[1].order(account, "a.example.com", "b.example.com")
    for position in range(2):
        await servers[position].respond(order, position)
    for _ in range(50):
        for server in servers:
            order = await server.services.orders.poll(
                await server.services.orders.get(world.caller(account), order.metadata.name)
            )
        if order.status.state != "pending":
            break
        await asyncio.sleep(0.02)
    der = pki.csr("a.example.com", "b.example.com")
    first = await servers[0].services.orders.finalize(world.caller(account), order, der)
    second = await servers[1].services.orders.finalize(world.caller(account), order, der)
    assert first.status.certificate is not None
    assert first.status.certificate == second.status.certificate
    assert (await servers[1].services.orders.poll(order)).status.state == "valid"


async def in_processing(world: World, account: ACMEAccount) -> ACMEOrder:
    """An order whose validation takes longer than the client's patience, and its server dies."""
    world.validator.gate = asyncio.Event()
    order = await world.order(account)
    await world.respond(order, 0, "http-01")
    await world.services.orders.poll(order)
    assert world.stored(order).status.authorizations[0].challenges[0].state == "processing"
    await world.services.worker.drain(0)
    world.validator.gate = None
    return order


async def test_a_validation_that_was_lost_with_an_earlier_life_is_resumed_by_a_poll(
    world: World, account: ACMEAccount
) -> None:
    order = await in_processing(world, account)
    world.start()
    assert (await world.services.orders.poll(order)).status.state == "pending"
    assert (await world.services.orders.poll(order)).status.state == "ready"


async def test_a_validation_that_was_lost_with_another_server_is_resumed_after_a_while(
    world: World, account: ACMEAccount
) -> None:
    order = await in_processing(world, account)
    other = world.another()
    await other.services.orders.poll(order)
    assert (await other.services.orders.poll(order)).status.state == "pending"
    assert len(world.validator.asked) == 1
    world.clock.ahead = timedelta(seconds=31)
    await other.services.orders.poll(order)
    assert (await other.services.orders.poll(order)).status.state == "ready"


async def test_a_lost_validation_is_resumed_when_the_client_answers_again(world: World, account: ACMEAccount) -> None:
    order = await in_processing(world, account)
    world.start()
    await world.respond(order, 0, "http-01")
    assert (await world.services.orders.poll(order)).status.state == "ready"


async def test_a_response_that_was_lost_before_anything_was_written_is_taken_up_quietly(
    world: World, account: ACMEAccount
) -> None:
    order = await world.order(account)
    world.start()
    shown = await world.services.orders.poll(order)
    assert shown.status.authorizations[0].challenges[0].state == "pending"
    assert (await world.services.orders.poll(order)).status.state == "ready"


async def test_a_quiet_attempt_that_fails_leaves_no_trace_and_is_made_once(world: World, account: ACMEAccount) -> None:
    world.validator.failures[NAME] = wrong("not there yet")
    order = await world.order(account)
    world.start()
    for _ in range(3):
        assert (await world.services.orders.poll(order)).status.state == "pending"
        await asyncio.sleep(0.05)
    assert len(world.validator.asked) == 1
    assert world.stored(order).status.authorizations == ()
    world.validator.failures.clear()
    await world.respond(order, 0, "http-01")
    assert (await world.services.orders.poll(order)).status.state == "ready"


async def test_an_order_that_is_younger_than_the_server_is_not_attempted_quietly(
    world: World, account: ACMEAccount
) -> None:
    world.clock.ahead = -timedelta(seconds=5)
    world.start()
    world.clock.ahead = timedelta(0)
    order = await world.order(account)
    await world.services.orders.poll(order)
    await asyncio.sleep(0.05)
    assert world.validator.asked == []


async def test_a_server_that_is_ending_resumes_nothing(world: World, account: ACMEAccount) -> None:
    order = await in_processing(world, account)
    world.start()
    await world.services.worker.drain(0)
    assert (await world.services.orders.poll(order)).status.state == "pending"
    with pytest.raises(Unavailable):
        await world.respond(order, 0, "http-01")


async def test_finalizing_waits_for_validations_that_are_under_way() -> None:
    async with running_world() as world:
        world.timing = PATIENT
        world.start()
        account = await world.account()
        world.validator.seconds = 0.1
        order = await world.order(account, "a.example.com", "b.example.com")
        for position in range(2):
            await world.respond(order, position, "http-01")
        finished = await world.finalized(
            account,
            order,
            pki.csr("a.example.com", "b.example.com"),
        )
        assert finished.status.state == "valid"


async def attempted(world: World, times: int) -> None:
    await until(lambda: len(world.validator.asked) == times)


ALL_TYPES: tuple[ChallengeType, ...] = ("http-01", "dns-01", "tls-alpn-01")


@pytest.mark.requirement("S145", "SEC51")
@pytest.mark.parametrize("type_", ALL_TYPES)
async def test_attempts_of_every_challenge_are_repeated_shown_and_hurried_by_the_client(
    type_: ChallengeType,
) -> None:
    def configure(world: World) -> None:
        world.offered = ALL_TYPES
        world.timing = ValidationTiming(idle=0.05, hold=0.1, poll=0.1, retry_delays=(60, 60), retry_for=200)
        world.configure(challenges=ALL_TYPES)

    async with running_world(configure) as world:
        order = await world.order(await world.account())
        world.validator.failures[NAME] = [wrong("first", temporary=True), wrong("second", temporary=True)]
        for attempt, expected in enumerate(("first", "second (2 attempts)"), 1):
            # The response begins the validation; the next one has it repeated now instead of in a minute.
            await world.respond(order, 0, type_)
            await attempted(world, attempt)
            shown = await world.services.orders.poll(order, position=0)
            challenge = next(each for each in shown.status.authorizations[0].challenges if each.type == type_)
            assert challenge.state == "processing"
            assert challenge.error is not None
            assert challenge.error.detail == expected
        assert challenge.error is not None
        assert [each.detail for each in challenge.error.subproblems] == ["first"]
        await world.respond(order, 0, type_)
        assert (await world.services.orders.poll(order, position=0)).status.state == "ready"
        assert len(world.validator.asked) == 3
