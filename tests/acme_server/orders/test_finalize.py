from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509
from msgspec.structs import replace

from acme_server.jose.jwk import thumbprint
from acme_server.payloads import AccountUpdate
from acme_server.problems import ProblemType, Refused, Unavailable
from kms.issuers import Issued, SecretIssuer
from kms.pki.certificate import LeafTemplate
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ORDERS
from kms.resources.meta import is_true
from kms.resources.orders import ACMEOrder
from kms.resources.policies import DNSNameRules, PolicySpec
from tests.support import pki
from tests.support.accounts import account as an_account
from tests.support.domain import Key, World, certificate_of, counted
from tests.support.refusals import refusal

NAME = "www.example.com"
CSR = pki.csr(NAME)
OTHER_CSR = pki.csr(NAME, signed_with=pki.key(which="other"))
HOUR = timedelta(hours=1)


async def finalize(world: World, account: ACMEAccount, order: ACMEOrder, der: bytes = CSR) -> ACMEOrder:
    return await world.finalized(account, order, der)


@pytest.mark.requirement("C10")
async def test_a_ready_order_gets_its_certificate_in_one_write(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account)
    world.services.state.account_index.mark_complete()
    before = len(world.api.requests)
    order = await finalize(world, account, order)
    assert world.calls(before) == ["update acmeorders"]
    assert order.status.state == "valid"
    assert is_true(order.status.conditions, "Ready")
    certificate = certificate_of(order)
    assert f"{certificate.serial_number:x}" == order.status.serial_number
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    assert world.stored(order).status.certificate == order.status.certificate


@pytest.mark.requirement("M113", "C9")
async def test_the_same_request_again_gets_the_same_order(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account)
    first = await finalize(world, account, order)
    before = len(world.api.requests)
    assert await finalize(world, account, order) == first
    assert world.calls(before) == []
    assert await finalize(world.another(), account, order) == first


@pytest.mark.requirement("M113", "SEC56")
async def test_an_order_that_is_not_ready_is_refused_after_a_live_read(world: World, account: ACMEAccount) -> None:
    order = await world.order(account)
    before = len(world.api.requests)
    assert (await refusal(finalize(world, account, order))).type == ProblemType.ORDER_NOT_READY
    assert world.calls(before) == ["get acmeorders"]


@pytest.mark.requirement("SEC56")
async def test_what_another_server_has_validated_is_found_before_a_no(world: World, account: ACMEAccount) -> None:
    order = await world.order(account)
    other = world.another()
    await other.respond(order, 0, "http-01")
    await other.services.orders.poll(order)
    assert (await finalize(world, account, order)).status.state == "valid"


@pytest.mark.requirement("SEC28")
async def test_the_policy_counts_as_it_is_now(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account)
    world.configure(policy=PolicySpec(dns_names=DNSNameRules(allowed=("other.example.com",))))
    refused = await refusal(finalize(world, account, order))
    assert "policy pki/policy (spec.dnsNames.allowed)" in refused.detail


@pytest.mark.requirement("M115", "M157", "SEC26")
async def test_the_key_of_any_account_of_the_profile_gets_no_certificate(world: World, account: ACMEAccount) -> None:
    other = world.another()
    await other.account(Key(thumbprint=thumbprint(pki.key().public_key()) or ""))
    order = await world.proven(account)
    assert (await refusal(finalize(world, account, order))).type == ProblemType.BAD_CSR


@pytest.mark.requirement("M115", "SEC26")
async def test_the_key_of_an_account_of_another_profile_gets_none_either(world: World, account: ACMEAccount) -> None:
    foreign = an_account("a" * 52, "elsewhere", thumbprint=thumbprint(pki.key().public_key()) or "")
    world.services.state.accounts.apply_event(foreign, deleted=False)  # as the watch tells of it
    order = await world.proven(account)
    assert (await refusal(finalize(world, account, order))).type == ProblemType.BAD_CSR


@pytest.mark.requirement("SEC27")
async def test_of_two_different_requests_at_once_one_wins(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account)
    servers = [world, world.another()]
    results = await asyncio.gather(
        finalize(servers[0], account, order, CSR),
        finalize(servers[1], account, order, OTHER_CSR),
        return_exceptions=True,
    )
    won = [each for each in results if not isinstance(each, BaseException)]
    lost = [each for each in results if isinstance(each, Refused)]
    assert len(won) == len(lost) == 1
    assert lost[0].type == ProblemType.ORDER_NOT_READY
    assert won[0].status.certificate == world.stored(order).status.certificate


async def test_an_order_that_has_been_ready_for_long_keeps_request_and_time_first(
    world: World, account: ACMEAccount
) -> None:
    order = await world.proven(account)
    world.services.state.account_index.mark_complete()
    world.clock.ahead = 2 * HOUR
    before = len(world.api.requests)
    finished = await finalize(world, account, order)
    assert world.calls(before) == ["update acmeorders", "update acmeorders"]
    lifetime = certificate_of(finished).not_valid_after_utc - world.clock()
    assert lifetime > timedelta(hours=719, minutes=50)


@pytest.mark.requirement("SEC35")
async def test_a_write_that_is_lost_is_repeated_with_the_same_certificate(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account)
    world.api.fail_next("update", ORDERS.plural, 503)
    with pytest.raises(Unavailable):
        await finalize(world, account, order)
    assert world.stored(order).status.state == "ready"
    world.api.fail_next("update", ORDERS.plural, 503, done=True)
    with pytest.raises(Unavailable):
        await finalize(world, account, order)
    kept = world.stored(order).status.certificate
    assert kept is not None
    assert (await finalize(world, account, order)).status.certificate == kept


async def accepted(world: World, account: ACMEAccount) -> ACMEOrder:
    """An order in processing: its server has died between accepting and issuing."""
    order = await world.proven(account)
    world.clock.ahead = 2 * HOUR
    world.remove_authority_key()
    processing = await finalize(world, account, order)
    assert processing.status.state == "processing"
    assert world.stored(order).status.request == CSR
    return processing


@pytest.mark.requirement("M116", "M117")
async def test_an_order_waits_in_processing_for_its_issuer(world: World, account: ACMEAccount) -> None:
    order = await accepted(world, account)
    assert (await world.services.orders.poll(order)).status.state == "processing"
    assert (await finalize(world, account, order)).status.state == "processing"
    world.install_authority()
    world.start()
    finished = await world.services.orders.poll(order)
    assert finished.status.state == "valid"
    assert finished.status.request is None
    assert set(counted(world.metrics, "issuance_duration_seconds")) == {
        ("internal", "not-ready"),
        ("internal", "signed"),
    }


@pytest.mark.requirement("M117", "SEC34")
async def test_an_order_does_not_wait_in_processing_for_ever(world: World, account: ACMEAccount) -> None:
    order = await accepted(world, account)
    world.clock.ahead = timedelta(hours=25)
    ended = await world.services.orders.poll(order)
    assert ended.status.state == "invalid"
    assert ended.status.error is not None
    assert "in time" in ended.status.error.detail


@pytest.mark.requirement("S104", "SEC07")
async def test_an_order_in_processing_is_not_issued_to_a_deactivated_account(
    world: World, account: ACMEAccount
) -> None:
    order = await accepted(world, account)
    await world.services.accounts.update(world.caller(account), AccountUpdate(status="deactivated"))
    world.install_authority()
    ended = await world.services.orders.poll(order)
    assert ended.status.state == "invalid"
    assert ended.status.certificate is None


@pytest.mark.requirement("SEC34")
async def test_an_order_in_processing_without_its_request_ends(world: World, account: ACMEAccount) -> None:
    order = await accepted(world, account)
    stored = world.stored(order)
    world.api.put(ORDERS, replace(stored, status=replace(stored.status, request=None)))
    world.start()
    assert (await world.services.orders.poll(order)).status.state == "invalid"


@pytest.mark.requirement("C4", "C6")
async def test_without_an_issuer_a_fresh_order_stays_ready_and_the_client_comes_again(
    world: World, account: ACMEAccount
) -> None:
    order = await world.proven(account)
    world.remove_authority_key()
    with pytest.raises(Unavailable):
        await finalize(world, account, order)
    assert world.stored(order).status.state == "ready"
    world.install_authority()
    assert (await finalize(world, account, order)).status.state == "valid"


@pytest.mark.requirement("SEC31", "SEC59")
async def test_a_ca_that_has_ended_issues_nothing(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account)
    world.install_authority(not_after=world.clock() - HOUR)
    with pytest.raises(Unavailable):
        await finalize(world, account, order)


@pytest.mark.requirement("M117")
async def test_what_no_retry_repairs_ends_the_order_and_says_so(
    world: World, account: ACMEAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: SecretIssuer, __: LeafTemplate) -> None:
        raise ValueError("secret detail")

    order = await world.proven(account)
    monkeypatch.setattr(SecretIssuer, "sign", broken)
    ended = await finalize(world, account, order)
    assert ended.status.state == "invalid"
    assert ended.status.error is not None
    assert ended.status.error.type == "serverInternal"
    assert "secret" not in ended.status.error.detail
    assert counted(world.metrics, "issuance_duration_seconds") == {("internal", "failed"): 1}


async def test_a_poll_does_not_get_in_the_way_of_an_issuance_that_is_under_way(
    world: World, account: ACMEAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await accepted(world, account)
    world.install_authority()
    gate, sign = asyncio.Event(), SecretIssuer.sign

    async def slow(issuer: SecretIssuer, template: LeafTemplate) -> Issued:
        await gate.wait()
        return await sign(issuer, template)

    monkeypatch.setattr(SecretIssuer, "sign", slow)
    first = asyncio.create_task(world.services.orders.poll(order))
    await asyncio.sleep(0.05)
    assert (await world.services.orders.poll(order)).status.state == "processing"
    gate.set()
    assert (await first).status.state == "valid"


@pytest.mark.requirement("SEC34", "SEC35")
@pytest.mark.parametrize("writes", range(6))
async def test_wherever_a_server_dies_the_order_ends_and_is_issued_at_most_once(
    world: World, account: ACMEAccount, writes: int
) -> None:
    """After each number of writes the API server is gone for that life of the server; the next life goes on."""
    certificates: set[str] = set()
    order = await world.order(account)
    world.clock.ahead = HOUR  # so that a finalization writes twice
    failing = {"left": writes}
    plain = world.cluster.replace_status

    async def limited(kind: object, resource: object, **options: object) -> object:
        if failing["left"] <= 0:
            raise Dead
        failing["left"] -= 1
        return await plain(kind, resource, **options)  # type: ignore[type-var, arg-type]

    world.cluster.replace_status = limited  # type: ignore[method-assign, assignment]
    for _ in range(10):
        try:
            order = await world.respond(order, 0, "http-01")
            order = await world.services.orders.poll(order)
            order = await finalize(world, account, order)
        except (Dead, Unavailable, Refused):
            await world.services.worker.drain(0)
            failing["left"] = 100
            world.start()
            continue
        if order.status.certificate:
            certificates.add(order.status.certificate)
    assert len(certificates) == 1
    assert world.stored(order).status.certificate in certificates


class Dead(Exception):
    """The server was killed."""
