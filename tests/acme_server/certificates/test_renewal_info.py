from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.api.problems import status_of
from acme_server.model import CertificateId
from acme_server.orders import transitions
from acme_server.problems import ProblemType, Refused, Unavailable
from kms.resources.accounts import ACMEAccount
from kms.resources.orders import ACMEOrder, Revocation
from tests.support import pki
from tests.support.domain import NAMESPACE, PROFILE, Key, World, running_world, wanted, wrong

NAME = "www.example.com"
DUE = timedelta(days=22)
"""When a certificate of 30 days should be renewed."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world(lambda world: world.configure(authorization_lifetime="0s")) as world:
        world.services.state.order_index.mark_complete()
        yield world


async def certified(world: World, account: ACMEAccount, name: str = NAME) -> ACMEOrder:
    order = await world.proven(account, name)
    return await world.finalized(account, order, pki.csr(name))


def id_of(order: ACMEOrder) -> str:
    return str(CertificateId(order.status.authority_key_id or "", order.status.serial_number or ""))


async def replacing(world: World, account: ACMEAccount, certificate_id: str, name: str = NAME) -> ACMEOrder:
    return await world.services.orders.create(world.caller(account), wanted(name, replaces=certificate_id))


async def full(world: World, account: ACMEAccount) -> None:
    """Let the account have as many orders as it may have, its certificate among them."""
    world.services.state.open_orders.maximum = 1
    for _ in range(10):
        try:
            await world.order(account)
        except Refused:
            return
    pytest.fail("the account may have any number of orders")


async def refusal(world: World, account: ACMEAccount, certificate_id: str, name: str = NAME) -> Refused:
    with pytest.raises(Refused) as caught:
        await replacing(world, account, certificate_id, name)
    assert caught.value.detail.startswith("replaces: ")
    return caught.value


@pytest.mark.requirement("ARI-M13", "SEC37")
async def test_what_is_known_of_a_certificate_costs_no_call(world: World, account: ACMEAccount) -> None:
    order = await certified(world, account)
    before = len(world.api.requests)
    info = world.services.renewals.info(world.profile, id_of(order))
    assert order.status.not_after is not None
    assert info.window.end < order.status.not_after
    assert world.calls(before) == []


@pytest.mark.requirement("ARI-M5")
async def test_other_certificates_are_not_found(world: World, account: ACMEAccount) -> None:
    order = await certified(world, account)
    serial = order.status.serial_number or ""
    for other in (CertificateId("00" * 20, serial), CertificateId(order.status.authority_key_id or "", "1234")):
        with pytest.raises(Refused) as caught:
            world.services.renewals.info(world.profile, str(other))
        assert status_of(caught.value) == 404


async def test_while_certificates_are_being_read_nothing_is_not_found(world: World) -> None:
    world.services.state.order_index.mark_stale()
    with pytest.raises(Unavailable):
        world.services.renewals.info(world.profile, str(CertificateId("00" * 20, "1234")))


@pytest.mark.requirement("ARI-M6")
@pytest.mark.parametrize("of", ["profile", "authority"])
async def test_an_administrator_asks_for_early_renewal(world: World, account: ACMEAccount, of: str) -> None:
    order = await certified(world, account)
    asked = world.clock() + timedelta(hours=1)
    resource = world.profiles.get(NAMESPACE, PROFILE) if of == "profile" else world.authorities.get(NAMESPACE, "ca")
    assert resource is not None
    changed = replace(
        resource,
        metadata=replace(resource.metadata, resource_version=""),
        spec=replace(resource.spec, renew_issued_before=asked),
    )
    (world.profiles if of == "profile" else world.authorities).put(changed)  # type: ignore[arg-type]
    assert world.services.renewals.info(world.profile, id_of(order)).window.start == asked


@pytest.mark.requirement("ARI-M8", "ARI-M9")
async def test_an_order_that_replaces_a_certificate_says_so_and_costs_one_write(
    world: World, account: ACMEAccount
) -> None:
    predecessor = await certified(world, account)
    before = len(world.api.requests)
    order = await replacing(world, account, id_of(predecessor))
    assert world.calls(before) == ["create acmeorders"]
    assert order.spec.replaces == id_of(predecessor)
    assert world.stored(order).spec.replaces == id_of(predecessor)


@pytest.mark.requirement("ARI-M8")
async def test_of_orders_that_replace_the_same_certificate_at_once_one_is_made(
    world: World, account: ACMEAccount
) -> None:
    predecessor = await certified(world, account)
    other = world.another()
    other.services.state.order_index.update(world.stored(predecessor), False)
    results = await asyncio.gather(
        *(replacing(each, account, id_of(predecessor)) for each in (world, other) * 5), return_exceptions=True
    )
    made = [each for each in results if isinstance(each, ACMEOrder)]
    assert len(made) == 1
    assert {each.type for each in results if isinstance(each, Refused)} == {ProblemType.ALREADY_REPLACED}
    found, _ = await world.services.state.orders.page(NAMESPACE, limit=9)
    assert len(found) == 2


@pytest.mark.requirement("ARI-M10")
async def test_an_order_that_failed_lets_the_next_one_replace(world: World, account: ACMEAccount) -> None:
    predecessor = await certified(world, account)
    world.validator.failures[NAME] = wrong()
    for _ in range(3):
        failed = await replacing(world, account, id_of(predecessor))
        await world.respond(failed, 0, "http-01")
        assert (await world.services.orders.poll(failed)).status.state == "invalid"
    assert (await replacing(world, account, id_of(predecessor))).status.state == "pending"


@pytest.mark.requirement("ARI-M10")
async def test_an_order_that_expired_lets_the_next_one_replace(world: World, account: ACMEAccount) -> None:
    predecessor = await certified(world, account)
    abandoned = await replacing(world, account, id_of(predecessor))
    world.clock.ahead += timedelta(days=2)
    assert (await replacing(world, account, id_of(predecessor))).metadata.name != abandoned.metadata.name


@pytest.mark.requirement("ARI-M8")
async def test_only_ones_own_certificates_of_the_same_names_can_be_replaced(world: World, account: ACMEAccount) -> None:
    predecessor = await certified(world, account)
    other = await world.account(Key(thumbprint="x" * 43))
    assert (await refusal(world, other, id_of(predecessor))).type is ProblemType.UNAUTHORIZED
    different = await refusal(world, account, id_of(predecessor), "other.example.com")
    assert (different.type, "shares no name" in different.detail) == (ProblemType.MALFORMED, True)
    unknown = await refusal(world, account, str(CertificateId("ab" * 20, "1234")))
    assert unknown.type is ProblemType.MALFORMED


@pytest.mark.requirement("ARI-M8")
async def test_one_name_in_common_is_enough(world: World, account: ACMEAccount) -> None:
    predecessor = await certified(world, account)
    order = await world.services.orders.create(
        world.caller(account),
        wanted("new.example.com", NAME, replaces=id_of(predecessor)),
    )
    assert order.spec.replaces is not None


@pytest.mark.requirement("ARI-M11")
async def test_renewals_are_not_kept_waiting_by_the_limit_of_open_orders(world: World, account: ACMEAccount) -> None:
    predecessor = await certified(world, account)
    await full(world, account)
    with pytest.raises(Refused, match="orders that are open"):
        await replacing(world, account, id_of(predecessor))  # it is not due yet
    world.clock.ahead = DUE
    await full(world, account)
    assert (await replacing(world, account, id_of(predecessor))).status.state == "pending"


@pytest.mark.requirement("SEC73")
async def test_a_renewal_that_failed_waits_as_others_do(world: World, account: ACMEAccount) -> None:
    predecessor = await certified(world, account)
    world.clock.ahead = DUE
    world.validator.failures[NAME] = wrong()
    failed = await replacing(world, account, id_of(predecessor))
    await world.respond(failed)
    assert (await world.services.orders.poll(failed)).status.state == "invalid"
    await full(world, account)
    with pytest.raises(Refused, match="orders that are open"):
        await replacing(world, account, id_of(predecessor))


@pytest.mark.requirement("SEC73", "SEC74")
async def test_renewals_that_failed_cost_later_ones_no_requests(world: World, account: ACMEAccount) -> None:
    predecessor = await certified(world, account)
    world.validator.failures[NAME] = wrong()
    for _ in range(5):
        before = len(world.api.requests)
        failed = await replacing(world, account, id_of(predecessor))
        assert world.calls(before) == ["create acmeorders"]  # before: and two requests for each that has failed
        await world.respond(failed)
        assert (await world.services.orders.poll(failed)).status.state == "invalid"


@pytest.mark.requirement("SEC73")
async def test_renewals_exceed_the_limit_of_a_profile_by_its_reserve_alone(world: World, account: ACMEAccount) -> None:
    predecessors = [await certified(world, account, f"host-{number}.example.com") for number in range(5)]
    world.configure(authorization_lifetime="0s", maximum_orders=5)
    world.clock.ahead = DUE
    outcomes = []
    for number, predecessor in enumerate(predecessors):
        try:
            await replacing(world, account, id_of(predecessor), f"host-{number}.example.com")
        except Refused as refused:
            outcomes.append(str(refused.type))
        else:
            outcomes.append("created")
    # Before, all five were created, and 60 in 2.2 s for an account with 60 certificates.
    assert outcomes == ["created", *["rateLimited"] * 4]


@pytest.mark.requirement("SEC25", "SEC26")
async def test_a_key_that_was_revoked_as_compromised_is_not_certified_again(world: World, account: ACMEAccount) -> None:
    csr = pki.csr(NAME)
    order = await world.proven(account)
    order = await world.finalized(account, order, csr)
    revoked = replace(
        order,
        metadata=replace(order.metadata, resource_version="99999"),
        status=replace(order.status, revocation=Revocation(time=world.clock(), reason="keyCompromise")),
    )
    world.services.state.order_index.update(revoked, False)
    again = await world.proven(account)
    with pytest.raises(Refused, match="compromised") as caught:
        await world.finalized(account, again, csr)
    assert caught.value.type is ProblemType.BAD_CSR
    assert world.stored(again).status.state == "ready", "another key will do"
    transitions.require_ready(world.stored(again), now=world.clock())
