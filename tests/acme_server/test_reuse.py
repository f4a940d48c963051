"""Valid authorizations are used again, on whatever server, until they end: and then for nothing at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.model import CertificateId
from acme_server.orders import transitions
from acme_server.orders.lifetimes import base_time
from acme_server.problems import ProblemType, Unavailable
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ORDERS
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.orders import ACMEOrder, Authorized, Identifier, OrderSpec, token_of, with_authorizations
from kms.resources.policies import DNSNameRules, PolicySpec
from tests.support import pki
from tests.support.domain import NAMESPACE, Key, World, running_world
from tests.support.refusals import refusal
from tests.support.server import running_server

WWW = "www.example.com"
ISSUANCE = ["create acmeorders", "update acmeorders"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as world:
        world.services.state.account_index.mark_complete()
        yield world


@pytest.mark.requirement("M71", "S59")
async def test_an_order_whose_names_are_proven_is_ready_and_costs_two_writes_and_no_read(
    world: World, account: ACMEAccount
) -> None:
    names = [f"host-{number}.example.com" for number in range(10)]
    first = await world.proven(account, *names)
    before = len(world.api.requests)
    order = await world.order(account, *reversed(names))
    assert order.status.state == "ready"
    assert [each.order for each in order.spec.authorized] == [first.metadata.name] * 10
    assert [each.position for each in order.spec.authorized] == list(reversed(range(10)))
    assert [token_of(order.spec, position, "http-01") for position in range(10)] == [None] * 10
    assert all(each.challenges[0].state == "valid" for each in order.status.authorizations)
    order = await world.finalized(account, order)
    assert order.status.state == "valid"
    assert world.calls(before) == ISSUANCE


async def test_names_that_are_not_proven_yet_are_asked_for(world: World, account: ACMEAccount) -> None:
    await world.proven(account)
    order = await world.order(account, "new.example.com", WWW)
    assert [each.state for each in order.status.authorizations] == ["pending", "valid"]
    assert [token_of(order.spec, position, "http-01") is not None for position in (0, 1)] == [True, False]
    await world.respond(order, 0, "http-01")
    order = await world.services.orders.poll(order)
    assert order.status.state == "ready"
    assert len(world.validator.asked) == 2
    assert (await world.finalized(account, order)).status.state == "valid"
    # What an order relies on is not its own: the third order refers to the two that proved.
    third = await world.order(account, "new.example.com", WWW)
    assert len({each.order for each in third.spec.authorized}) == 2


async def test_with_a_lifetime_of_nothing_every_order_proves_anew(world: World, account: ACMEAccount) -> None:
    world.configure(authorization_lifetime="0s")
    await world.proven(account)
    assert (await world.order(account)).status.state == "pending"


@pytest.mark.requirement("S109", "SEC67")
async def test_a_proof_is_used_again_within_the_lifetime_alone_and_the_order_ends_with_it(
    world: World, account: ACMEAccount
) -> None:
    world.configure(authorization_lifetime="30h")
    first = await world.proven(account)
    world.clock.ahead = timedelta(hours=29)
    order = await world.order(account)
    assert order.status.state == "ready"
    assert order.spec.expires == order.status.authorizations[0].expires == first.status.authorizations[0].expires
    assert order.spec.expires - world.clock() < timedelta(hours=2)
    world.clock.ahead = timedelta(hours=30, seconds=1)
    assert (await world.order(account)).status.state == "pending"
    world.clock.ahead = timedelta(hours=30, minutes=6)
    problem = await refusal(world.finalized(account, order))
    assert problem.type == ProblemType.ORDER_NOT_READY
    ended = await world.services.orders.poll(order)
    assert (ended.status.state, ended.status.authorizations[0].state) == ("invalid", "expired")


async def test_a_lifetime_that_was_shortened_counts_at_once(world: World, account: ACMEAccount) -> None:
    await world.proven(account)
    world.clock.ahead = timedelta(hours=2)
    world.configure(authorization_lifetime="1h")
    assert (await world.order(account)).status.state == "pending"


@pytest.mark.requirement("SEC50")
async def test_a_proof_by_a_challenge_that_is_not_offered_any_more_is_not_used(
    world: World, account: ACMEAccount
) -> None:
    world.offered = ("http-01", "dns-01")
    world.start()
    await world.proven(account)
    assert (await world.order(account)).status.state == "ready"
    world.configure(challenges=("dns-01",))
    assert (await world.order(account)).status.state == "pending"


async def test_the_lifetime_of_a_certificate_counts_from_its_own_order(world: World, account: ACMEAccount) -> None:
    await world.proven(account)
    world.clock.ahead = timedelta(hours=20)
    order = await world.order(account)
    # The API server of these tests does not know the clock that the test has moved.
    meta = replace(order.metadata, creation_timestamp=world.clock())
    assert base_time(replace(order, metadata=meta), created=world.clock(), now=world.clock()) == world.clock()


async def test_a_renewal_of_names_that_are_proven_is_ready_at_once(world: World, account: ACMEAccount) -> None:
    world.services.state.order_index.mark_complete()
    first = await world.finalized(account, await world.proven(account))
    replaced = CertificateId(first.status.authority_key_id or "", first.status.serial_number or "")
    before = len(world.api.requests)
    order = await world.order(account, replaces=str(replaced))
    assert (order.status.state, order.spec.replaces) == ("ready", str(replaced))
    assert (await world.finalized(account, order)).status.state == "valid"
    assert world.calls(before) == ISSUANCE


@pytest.mark.requirement("M134", "M135", "M69")
async def test_a_deactivated_authorization_ends_every_order_that_relies_on_it(
    world: World, account: ACMEAccount
) -> None:
    first = await world.finalized(account, await world.proven(account))
    second, third = await world.order(account), await world.order(account, WWW, "new.example.com")
    given_up = await world.services.orders.deactivate_authorization(first, 0)
    assert given_up.status.state == "valid"  # its certificate is out
    problem = await refusal(world.finalized(account, second))
    assert problem.type == ProblemType.ORDER_NOT_READY
    assert "deactivated" in problem.detail
    assert world.stored(second).status.state == "invalid"
    looked_at = await world.services.orders.poll(third)
    assert (looked_at.status.state, looked_at.status.authorizations[0].state) == ("invalid", "deactivated")
    assert (await world.order(account)).status.state == "pending"


@pytest.mark.requirement("M135")
async def test_an_order_that_is_processing_ends_with_the_authorization_that_it_relies_on(
    world: World, account: ACMEAccount
) -> None:
    first = await world.proven(account)
    order = await world.order(account)
    order = await world.services.state.orders.change(
        order, lambda each: transitions.accepted(each, pki.csr(WWW), "d" * 64, now=world.clock())
    )
    await world.services.orders.deactivate_authorization(first, 0)
    ended = await world.services.orders.refresh(order)
    assert ended.status.state == "invalid"
    assert ended.status.certificate is None


@pytest.mark.requirement("M135", "SEC56")
async def test_what_was_deactivated_at_one_server_issues_nothing_at_another_that_has_not_heard_of_it(
    world: World, account: ACMEAccount
) -> None:
    first = await world.proven(account)
    other = world.another()
    other.services.state.orders.apply_event(world.stored(first), False)
    order = await other.order(account)
    await world.services.orders.deactivate_authorization(first, 0)
    assert (await other.services.orders.poll(order)).status.state == "ready"  # nobody has told it
    problem = await refusal(other.finalized(account, order))
    assert problem.type == ProblemType.ORDER_NOT_READY
    assert world.stored(order).status.state == "invalid"


async def test_where_others_may_have_acted_each_earlier_order_is_read_once(world: World, account: ACMEAccount) -> None:
    names = [f"host-{number}.example.com" for number in range(5)]
    await world.proven(account, *names)
    order = await world.order(account, *names)
    world.sole_writer = False
    before = len(world.api.requests)
    await world.finalized(account, order)
    assert sorted(world.calls(before)) == ["get acmeaccounts", "get acmeorders", "update acmeorders"]


async def test_an_authorization_whose_order_is_gone_holds_no_longer(world: World, account: ACMEAccount) -> None:
    first = await world.proven(account)
    order = await world.order(account)
    await world.services.state.orders.remove(world.stored(first).metadata)
    world.services.state.orders.apply_event(first, True)
    problem = await refusal(world.finalized(account, order))
    assert problem.type == ProblemType.ORDER_NOT_READY
    assert world.stored(order).status.authorizations[0].state == "revoked"


async def test_without_the_api_server_nothing_is_said_against_an_order(world: World, account: ACMEAccount) -> None:
    await world.proven(account)
    order = await world.order(account)
    world.services.state.order_index.mark_stale()
    world.api.fail_next("get", "acmeorders", 503)
    with pytest.raises(Unavailable):
        await world.finalized(account, order)
    assert (await world.finalized(account, order)).status.state == "valid"


@pytest.mark.requirement("S59", "SEC03")
async def test_an_authorization_has_one_url() -> None:
    async with running_server() as server:
        await server.register()
        first = await server.ready()
        second = await server.order()
        assert second.json["authorizations"] == first.json["authorizations"]
        elsewhere = f"{server.base}/authorizations/{second.location.rpartition('/')[2]}-0"
        missing = await server.post(f"{server.base}/authorizations/{'a' * 32}-0")
        for payload in (None, {"status": "deactivated"}):
            answer = await server.post(elsewhere, payload)
            assert (answer.status, answer.text) == (404, missing.text)
        for type_ in ("http-01", "dns-01"):
            assert (await server.post(f"{elsewhere}/challenges/{type_}", {})).status == 404
        assert (await server.finalize(second)).json["status"] == "valid"


def forged(world: World, account: ACMEAccount, **proof: object) -> ACMEOrder:
    """An order that somebody has written by hand who may create ACMEOrders, but not their status (SEC57)."""
    until = world.clock() + timedelta(hours=1)
    authorized = Authorized(authorization=0, type="http-01", validated=world.clock(), expires=until, **proof)  # type: ignore[arg-type]
    return with_authorizations(
        world.api.put(
            ORDERS,
            ACMEOrder(
                metadata=ObjectMeta(namespace=NAMESPACE, name="f" * 32),
                spec=OrderSpec(
                    account_ref=LocalRef(name=account.metadata.name),
                    profile_ref=LocalRef(name="web"),
                    identifiers=(Identifier(type="dns", value="bank.example.com"),),
                    expires=until,
                    authorized=(authorized,),
                ),
            ),
        )
    )


@pytest.mark.requirement("SEC57", "SEC58")
async def test_an_order_cannot_prove_itself(world: World, account: ACMEAccount) -> None:
    other = await world.account(Key(thumbprint="other"))
    mine = (await world.proven(account)).metadata.name
    theirs = (await world.proven(other, "bank.example.com")).metadata.name
    for proof in (
        {},
        {"order": mine, "position": 0},
        {"order": theirs, "position": 0},
        {"order": mine, "position": 7},
        {"order": "f" * 32, "position": 0},
        {"order": "a" * 32, "position": 0},
    ):
        order = forged(world, account, **proof)
        problem = await refusal(world.finalized(account, order))
        assert problem.type == ProblemType.ORDER_NOT_READY
        assert world.stored(order).status.certificate is None
        world.services.state.orders.clear()


# Where the credential is taken for the proof (SEC50)


@pytest.mark.requirement("SEC50", "M71")
async def test_where_ownership_is_not_validated_an_order_of_a_bound_account_is_ready_at_once(world: World) -> None:
    rules = DNSNameRules(allowed=("**.example.com",), wildcards="Allow")
    world.configure(
        policy=PolicySpec(dns_names=rules), external_account_binding="Required", ownership_validation="Skipped"
    )
    account = await world.bound()
    before = len(world.api.requests)
    order = await world.order(account, "a.example.com", "*.apps.example.com")
    assert order.status.state == "ready"
    assert [each.wildcard for each in order.status.authorizations] == [False, True]
    assert [len(each.challenges) for each in order.status.authorizations] == [1, 0]
    assert (await world.finalized(account, order)).status.state == "valid"
    assert world.calls(before) == ISSUANCE
    assert world.validator.asked == []


@pytest.mark.requirement("SEC50")
async def test_an_account_without_a_binding_proves_its_names_also_where_others_need_not(world: World) -> None:
    world.configure(external_account_binding="Optional")
    unbound = await world.account(Key(thumbprint="other"))
    world.configure(external_account_binding="Required", ownership_validation="Skipped")
    order = await world.order(unbound)
    assert order.status.state == "pending"
    assert [each.type for each in order.status.authorizations[0].challenges] == ["http-01"]
    problem = await refusal(world.order(unbound, "*.example.com"))
    assert problem.type == ProblemType.REJECTED_IDENTIFIER


@pytest.mark.requirement("SEC50")
@pytest.mark.parametrize(
    "acme",
    [
        {"external_account_binding": "Optional"},
        {"external_account_binding": "Disabled"},
        {"policy": PolicySpec(dns_names=DNSNameRules(allowed=("**",)))},
    ],
)
async def test_a_profile_that_may_not_skip_validation_serves_nobody_whatever_its_status_says(
    world: World, acme: dict[str, object]
) -> None:
    world.configure(**{"external_account_binding": "Required", "ownership_validation": "Skipped", **acme})  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="not ready"):
        _ = world.profile


@pytest.mark.requirement("SEC50")
async def test_what_was_taken_without_proof_is_worth_nothing_once_proofs_are_asked_for(world: World) -> None:
    world.configure(external_account_binding="Required", ownership_validation="Skipped")
    account = await world.bound()
    issued, waiting = await world.order(account), await world.order(account)
    await world.finalized(account, issued)
    world.configure(external_account_binding="Required")
    problem = await refusal(world.finalized(account, waiting))
    assert problem.type == ProblemType.ORDER_NOT_READY
    assert world.stored(waiting).status.authorizations[0].state == "revoked"
    assert (await world.order(account)).status.state == "pending"
