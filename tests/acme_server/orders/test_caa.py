from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from acme_server.accounts.eab_credentials import Binding
from acme_server.api.problems import status_of
from acme_server.model import ChallengeId
from acme_server.orders import transitions
from acme_server.problems import ProblemType, Unavailable
from acme_server.validation.attempt import ValidationTiming
from acme_server.validation.caa_rules import Property
from kms.resources.accounts import ACMEAccount
from kms.resources.orders import ChallengeType
from kms.resources.policies import DNSNameRules, PolicySpec
from tests.support.domain import KEY_ID_1, PROFILE, Key, World, counted, running_world
from tests.support.eventually import until
from tests.support.refusals import refusal

CA = "ca.example.net"
NAMES = ("a.example.com", "b.example.com", "c.example.com")
LONG = timedelta(hours=9)


def issue(value: str = CA, tag: bytes = b"issue") -> list[Property]:
    return [Property(0, tag, value.encode())]


def enforcing(world: World, mode: str = "Enforce", **acme: Any) -> None:
    rules = PolicySpec(dns_names=DNSNameRules(allowed=("**.example.com",), wildcards="Allow"))
    world.configure(policy=rules, caa=mode, caa_identities=(CA,), challenges=world.offered, **acme)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    def configure(world: World) -> None:
        world.offered = ("http-01", "dns-01", "tls-alpn-01")
        world.timing = ValidationTiming(idle=0.05, hold=0.2, poll=0.2, retry_delays=(0.01, 0.01), retry_for=5.0)
        enforcing(world)

    async with running_world(configure) as world:
        yield world


async def test_a_name_that_names_this_ca_is_certified_with_one_check(world: World, account: ACMEAccount) -> None:
    world.records.properties["example.com"] = issue()
    order = await world.proven(account, "a.example.com")
    assert order.status.state == "ready"
    checked = order.status.authorizations[0].challenges[0].caa_checked_at
    assert checked == order.status.authorizations[0].challenges[0].validated
    assert (await world.finalized(account, order)).status.state == "valid"
    assert world.records.asked == ["a.example.com", "example.com"]
    assert counted(world.metrics, "caa_checks") == {("Enforce", "allowed"): 1}


@pytest.mark.requirement("CAA-M10", "SEC53")
async def test_each_name_is_judged_by_its_own_records(world: World, account: ACMEAccount) -> None:
    world.records.properties |= {"a.example.com": issue(), "b.example.com": issue(";"), "c.example.com": issue("x")}
    order = await world.proven(account, *NAMES)
    assert order.status.state == "invalid"
    errors = [each.challenges[0].error for each in order.status.authorizations]
    assert errors[0] is None
    assert errors[1] is not None
    assert errors[1].type == ProblemType.CAA
    assert errors[1].detail == (
        "The CAA records at b.example.com forbid a certificate for b.example.com: "
        f'no property "issue" that is well-formed names {CA}.'
    )
    assert errors[2] is not None
    assert "at c.example.com" in errors[2].detail
    assert order.status.error is not None
    assert order.status.error.type == ProblemType.CAA
    told = transitions.subproblems_of(order)
    assert [each.identifier and each.identifier.value for each in told] == list(NAMES[1:])
    assert len(world.validator.asked) == 3  # what is forbidden for good is not tried again


@pytest.mark.requirement("CAA-M5", "SEC54")
async def test_a_failed_lookup_is_tried_again_and_then_refused(world: World, account: ACMEAccount) -> None:
    world.records.properties["example.com"] = "the DNS servers answered SERVFAIL"
    order = await world.proven(account, "a.example.com")
    error = order.status.authorizations[0].challenges[0].error
    assert error is not None
    assert error.type == ProblemType.CAA
    assert error.detail == (
        "The CAA records for a.example.com cannot be looked up at example.com: "
        "the DNS servers answered SERVFAIL. (3 attempts)"
    )
    assert counted(world.metrics, "caa_checks") == {("Enforce", "failed"): 3}


@pytest.mark.requirement("CAA-M2", "SEC54", "SEC81")
async def test_a_wildcard_obeys_issuewild_of_its_base_name(world: World, account: ACMEAccount) -> None:
    world.records.properties["example.com"] = [*issue(";"), *issue(CA, b"issuewild")]
    assert (await world.proven(account, "*.w.example.com", type_="dns-01")).status.state == "ready"
    assert (await world.proven(account, "w.example.com", type_="dns-01")).status.state == "invalid"
    world.records.properties["example.com"] = [*issue(), *issue(";", b"issuewild")]
    refused = await world.proven(account, "*.v.example.com", type_="dns-01")
    assert refused.status.error is not None
    assert "forbid a certificate for *.v.example.com" in refused.status.error.detail


@pytest.mark.requirement("CAA-M6", "SEC54")
async def test_records_may_name_the_url_of_an_account(world: World, account: ACMEAccount) -> None:
    url = f"https://acme.example.com/acme/pki/{PROFILE}/accounts/{account.metadata.name}"
    world.records.properties["a.example.com"] = issue(f"{CA}; accounturi={url}")
    world.records.properties["b.example.com"] = issue(f"{CA}; accounturi={url[:-1]}")
    assert (await world.proven(account, "a.example.com")).status.state == "ready"
    assert (await world.proven(account, "b.example.com")).status.state == "invalid"


@pytest.mark.requirement("CAA-M7", "SEC54")
@pytest.mark.parametrize("type_", ["http-01", "dns-01", "tls-alpn-01"])
async def test_records_may_name_the_challenge(world: World, account: ACMEAccount, type_: ChallengeType) -> None:
    world.records.properties["a.example.com"] = issue(f"{CA}; validationmethods={type_}")
    world.records.properties["b.example.com"] = issue(f"{CA}; validationmethods=x{type_}")
    assert (await world.proven(account, "a.example.com", type_=type_)).status.state == "ready"
    refused = await world.proven(account, "b.example.com", type_=type_)
    assert refused.status.error is not None
    assert f"they do not allow {type_}" in refused.status.error.detail


@pytest.mark.requirement("CAA-M9", "CAA-M10", "SEC53")
async def test_names_that_were_proven_long_ago_are_checked_again_each_by_its_own_records(
    world: World, account: ACMEAccount
) -> None:
    order = await world.proven(account, *NAMES)
    world.records.asked.clear()
    world.clock.ahead = LONG
    world.records.properties |= {"b.example.com": issue(";"), "c.example.com": "SERVFAIL"}
    refused = await refusal(world.finalized(account, order))
    assert (refused.type, status_of(refused)) == (ProblemType.CAA, 403)
    told = {each.identifier.value: each.detail for each in refused.subproblems if each.identifier}
    assert set(told) == {"b.example.com", "c.example.com"}
    assert "forbid" in told["b.example.com"]
    assert "cannot be looked up" in told["c.example.com"]
    assert sorted(world.records.asked) == ["a.example.com", "b.example.com", "c.example.com", "com", "example.com"]
    assert world.stored(order).status.state == "ready"  # it may be finalized once the records are right
    world.records.properties.clear()
    assert (await world.finalized(account, order)).status.state == "valid"


@pytest.mark.requirement("CAA-M9")
async def test_a_proof_that_was_made_before_records_were_enforced_is_checked(
    world: World, account: ACMEAccount
) -> None:
    enforcing(world, "Off")
    order = await world.proven(account, "a.example.com")
    assert world.records.asked == []
    assert order.status.authorizations[0].challenges[0].caa_checked_at is None
    enforcing(world)
    world.records.properties["a.example.com"] = issue(";")
    assert (await refusal(world.finalized(account, order))).type == ProblemType.CAA


@pytest.mark.requirement("CAA-M9")
async def test_a_proof_of_an_earlier_order_is_checked_at_finalization(world: World, account: ACMEAccount) -> None:
    await world.proven(account, "a.example.com")
    again = await world.order(account, "a.example.com")
    assert again.status.state == "ready"
    world.records.properties["a.example.com"] = issue(";")
    assert (await refusal(world.finalized(account, again))).type == ProblemType.CAA


@pytest.mark.requirement("CAA-M9", "SEC50")
async def test_names_that_need_no_proof_are_checked_at_finalization(world: World) -> None:
    enforcing(world, ownership_validation="Skipped", external_account_binding="Required")
    account = await world.account(binding=Binding(world.put_credential(), KEY_ID_1))
    order = await world.order(account, "a.example.com")
    assert order.status.state == "ready"
    world.records.properties["a.example.com"] = issue(";")
    assert (await refusal(world.finalized(account, order))).type == ProblemType.CAA


async def test_what_is_only_reported_is_logged_counted_and_issued(
    world: World, account: ACMEAccount, caplog: pytest.LogCaptureFixture
) -> None:
    enforcing(world, "Report")
    world.records.properties |= {"a.example.com": issue(";"), "b.example.com": "SERVFAIL"}
    with caplog.at_level(logging.WARNING):
        order = await world.proven(account, *NAMES)
    assert (await world.finalized(account, order)).status.state == "valid"
    results = {("Report", "allowed"): 1, ("Report", "failed"): 1, ("Report", "forbidden"): 1}
    assert counted(world.metrics, "caa_checks") == results
    told = [vars(each) for each in caplog.records if each.message == "CAA forbids a certificate"]
    assert len(told) == 2
    assert {each["order"] for each in told} == {order.metadata.name}


async def test_off_asks_nobody(world: World, account: ACMEAccount) -> None:
    enforcing(world, "Off")
    world.records.properties["example.com"] = issue(";")
    order = await world.proven(account, "a.example.com")
    world.clock.ahead = LONG
    assert (await world.finalized(account, order)).status.state == "valid"
    assert world.records.asked == []


async def test_a_proof_without_its_profile_is_not_accepted(world: World, account: ACMEAccount) -> None:
    order = await world.order(account, "a.example.com")
    caller = world.caller(account)
    world.profiles.remove("pki", PROFILE)
    await world.services.orders.respond(caller, order, 0, "http-01")
    order = await world.services.orders.poll(order)
    error = order.status.authorizations[0].challenges[0].error
    assert error is not None
    assert error.type == ProblemType.SERVER_INTERNAL


@pytest.mark.requirement("CAA-M9")
async def test_an_order_in_processing_whose_check_is_old_ends_with_the_objection(
    world: World, account: ACMEAccount
) -> None:
    order = await world.proven(account, "a.example.com")
    world.clock.ahead = timedelta(hours=1)  # long enough that the request is kept before it is issued
    world.remove_authority_key()
    assert (await world.finalized(account, order)).status.state == "processing"
    world.clock.ahead = timedelta(hours=10)
    world.records.properties["a.example.com"] = issue(";")
    world.install_authority()
    ended = await world.services.orders.poll(order)
    assert ended.status.state == "invalid"
    assert ended.status.error is not None
    assert ended.status.error.type == ProblemType.CAA


@pytest.mark.requirement("SEC54")
async def test_only_names_are_looked_up(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account, "a.example.com")
    authorization = order.status.authorizations[0]
    address = replace(authorization, identifier=replace(authorization.identifier, type="ip", value="10.0.0.1"))
    order = replace(order, status=replace(order.status, authorizations=(address,)))
    world.records.asked.clear()
    world.clock.ahead = LONG
    await world.services.caa.check_order(order)
    assert await world.services.caa.check_challenge(order, ChallengeId(0, "http-01")) is None
    assert world.records.asked == []


LABELS = [".".join(f"n{name}" for _ in range(58)) + ".example.com" for name in range(100)]


@pytest.mark.requirement("SEC74")
async def test_names_that_need_thousands_of_lookups_are_refused_before_anything_is_proven(
    world: World, account: ACMEAccount
) -> None:
    problem = await refusal(world.order(account, *LABELS))
    assert problem.type == ProblemType.REJECTED_IDENTIFIER
    assert "takes more than 500 lookups" in problem.detail
    assert (await world.order(account, *LABELS[:8])).status.state == "pending"


@pytest.mark.requirement("SEC74")
async def test_names_that_were_ordered_while_caa_was_off_are_refused_without_a_lookup(
    world: World, account: ACMEAccount
) -> None:
    enforcing(world, "Off")
    order = await world.proven(account, *LABELS[:20])
    enforcing(world)
    problem = await refusal(world.finalized(account, order))
    assert problem.type == ProblemType.CAA
    assert "takes more than 500 lookups" in problem.detail
    assert world.records.asked == []


@pytest.mark.requirement("SEC74")
async def test_an_account_with_too_many_checks_is_told_to_try_again_and_another_is_served(
    world: World, account: ACMEAccount
) -> None:
    orders = []
    for batch in range(4):
        names = [f"{'a.' * 60}n{name}-{batch}.example.com" for name in range(5)]
        orders.append(await world.proven(account, *names))
    other = await world.account(Key(thumbprint="other"))
    theirs = await world.proven(other, "www.example.com")
    world.clock.ahead = LONG
    world.records.gate = asyncio.Event()
    world.records.asked.clear()
    running = [asyncio.create_task(world.finalized(account, order)) for order in orders[:3]]
    await until(lambda: len(world.records.asked) >= 8)
    with pytest.raises(Unavailable) as busy:
        await world.finalized(account, orders[3])
    assert busy.value.retry_after > 0
    served = asyncio.create_task(world.finalized(other, theirs))
    await until(lambda: "www.example.com" in world.records.asked)
    assert len(world.records.asked) == 9
    world.records.gate.set()
    assert (await served).status.state == "valid"
    await asyncio.gather(*running)
    assert (await world.finalized(account, orders[3])).status.state == "valid"
