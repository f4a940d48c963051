"""Orders whose certificate comes from a CA that takes time: a scripted one, on a fake API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from acme_server.model import CertificateId
from acme_server.orders.external_issuance import Pace
from acme_server.orders.issuance_waiting import Schedule
from acme_server.payloads import AccountUpdate
from acme_server.problems import NotFound, ProblemType, Unavailable
from kms.issuers.protocol import Answer, Denied, Failed, Pending, Refused, Submission
from kms.issuers.protocol import Unavailable as CAUnavailable
from kms.pki.names import dns_name
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ORDERS
from kms.resources.meta import condition, key_of
from kms.resources.orders import ACMEOrder, AuthorityType, Claim
from tests.support import pki
from tests.support.domain import World, certificate_of, counted, running_world
from tests.support.eventually import until
from tests.support.refusals import refusal
from tests.support.scripted_issuer import FOREIGN_CA, WAITS, Reply, ScriptedIssuer, certified, certified_as
from tests.support.watching import watching

AT_ONCE = Schedule(after_failures=(timedelta(0), timedelta(0)), shortest=timedelta(0), longest=timedelta(0))
SECRET_WORDS = "host db-7.corp.example: password rejected"


def configure(world: World) -> None:
    world.issuer = ScriptedIssuer([certified])
    world.schedule = AT_ONCE
    world.install_external()


def configure_patient(world: World) -> None:
    configure(world)
    world.pace = Pace(inline=60, look=0.05, later=0.05)


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """With the parameter "patient", finalize waits for the end, however slow the machine is."""
    is_patient = getattr(request, "param", None) == "patient"
    async with running_world(configure_patient if is_patient else configure) as world:
        world.services.state.account_index.mark_complete()
        yield world


patient = pytest.mark.parametrize("world", ["patient"], indirect=True)


def ca(world: World) -> ScriptedIssuer:
    assert world.issuer is not None
    return world.issuer


def script(world: World, *replies: Reply) -> ScriptedIssuer:
    ca(world).script = list(replies)
    return ca(world)


def ready_of(order: ACMEOrder) -> tuple[str, str]:
    found = condition(order.status.conditions, "Ready")
    return ("", "") if found is None else (found.reason, found.message)


async def finalized(world: World, account: ACMEAccount, *names: str) -> ACMEOrder:
    return await world.finalized(account, await world.proven(account, *names))


async def ended(world: World, order: ACMEOrder) -> ACMEOrder:
    """The order once it has left processing, and its request is gone."""
    await until(lambda: world.stored(order).status.state != "processing", seconds=10)
    await until(lambda: not world.services.issuance.is_working_at(key_of(order)), seconds=10)
    return world.stored(order)


@patient
@pytest.mark.requirement("X15", "X22", "X25", "X35", "SEC29")
async def test_a_ca_that_answers_soon_gives_a_certificate_within_finalize(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account)
    before = len(world.api.requests)
    order = await world.finalized(account, order)
    assert order.status.state == "valid"
    assert certificate_of(order).issuer == FOREIGN_CA.certificate.subject
    assert (order.status.authority and order.status.authority.name, order.status.issuance) == ("ca", None)
    await ended(world, order)
    assert world.calls(before) == ["update acmeorders", "update acmeorders"]
    assert (len(ca(world).begun), ca(world).requests) == (1, {})
    assert order.status.certificate is not None
    assert order.status.certificate.count("BEGIN") == 2


@pytest.mark.requirement("X15")
async def test_nothing_is_sent_before_the_order_is_stored_as_processing(world: World, account: ACMEAccount) -> None:
    order = await world.proven(account)
    world.api.fail_next("update", ORDERS.plural, 503)
    with pytest.raises(Unavailable):
        await world.finalized(account, order)
    assert (ca(world).begun, world.stored(order).status.state) == ([], "ready")


@patient
@pytest.mark.requirement("X18", "X19", "X16")
async def test_what_is_asked_for_follows_from_profile_and_order(world: World, account: ACMEAccount) -> None:
    order = await finalized(world, account)
    (asked,) = ca(world).begun
    assert (asked.duration, asked.usages) == (timedelta(hours=720), ("digital signature", "server auth"))
    assert (asked.order, asked.order_uid, asked.attempt) == (key_of(order), order.metadata.uid, 1)
    assert asked.name.startswith("kms-")


@patient
@pytest.mark.requirement("X18")
async def test_no_certificate_is_asked_for_that_outlives_the_known_chain(world: World, account: ACMEAccount) -> None:
    world.configure(contents=replace(world.profile.resource.spec.certificate, duration="8000h"))
    policy = world.policies.get("pki", "policy")
    assert policy is not None
    world.policies.put(replace(policy, spec=replace(policy.spec, maximum_duration="9000h")))
    first = await finalized(world, account)  # nobody knows yet that the issuing CA ends first
    assert first.status.state == "valid"
    assert [each.attempt for each in ca(world).begun] == [1, 2]
    await finalized(world, account, "other.example.com")
    assert [each.attempt for each in ca(world).begun] == [1, 2, 1]
    assert ca(world).begun[-1].duration < timedelta(hours=7200)


@pytest.mark.requirement("X13")
@pytest.mark.parametrize("type_", ["CertManager", "Signer", "Vault"])
async def test_dates_that_the_ca_cannot_honour_are_refused_at_once(
    world: World, account: ACMEAccount, type_: AuthorityType
) -> None:
    world.install_external(type_)
    now = world.clock()
    refused = await refusal(world.order(account, not_before=now + timedelta(hours=1)))
    assert (refused.type, "notBefore" in refused.detail) == (ProblemType.MALFORMED, True)
    await world.order(account, not_before=now + timedelta(minutes=4))
    if type_ == "Vault":
        order = await world.proven(account, not_after=now + timedelta(days=2))
        await world.finalized(account, order)
        await ended(world, order)
        assert ca(world).begun[-1].not_after == order.spec.not_after
        return
    refused = await refusal(world.order(account, not_after=now + timedelta(days=2)))
    assert (refused.type, "notAfter" in refused.detail) == (ProblemType.MALFORMED, True)


@patient
@pytest.mark.requirement("X14", "X27")
async def test_a_request_that_the_ca_could_copy_too_much_of_leaves_the_order_ready(
    world: World, account: ACMEAccount
) -> None:
    order = await world.proven(account)
    must_staple = pki.csr(
        "www.example.com", extensions=[(x509.TLSFeature([x509.TLSFeatureType.status_request]), False)]
    )
    refused = await refusal(world.finalized(account, order, must_staple))
    assert (refused.type, "must-staple" in refused.detail) == (ProblemType.BAD_CSR, True)
    assert (world.stored(order).status.state, ca(world).begun) == ("ready", [])
    assert (await world.finalized(account, order)).status.state == "valid"


@pytest.mark.requirement("X15", "C9")
async def test_while_it_waits_the_same_request_is_a_replay_and_another_one_refused(
    world: World, account: ACMEAccount
) -> None:
    script(world, WAITS)
    order = await world.proven(account)
    request = pki.csr("www.example.com")
    first = await world.finalized(account, order, request)
    assert first.status.state == "processing"
    assert (await world.finalized(account, order, request)).status.state == "processing"
    other = pki.csr("www.example.com", signed_with=pki.key(which="other"))
    assert (await refusal(world.finalized(account, order, other))).type == ProblemType.ORDER_NOT_READY
    assert len(ca(world).begun) == 1


@pytest.mark.requirement("X22")
async def test_clients_ask_less_often_the_longer_it_takes(world: World, account: ACMEAccount) -> None:
    script(world, WAITS)
    order = await finalized(world, account)
    paces = []
    for ahead in (0, 15, 90):
        world.clock.ahead = timedelta(seconds=ahead)
        paces.append(world.services.orders.retry_after(order))
    assert paces == [1, 5, 30]


@pytest.mark.requirement("X23", "X22")
async def test_an_answer_that_comes_later_is_taken_when_the_watch_tells(world: World, account: ACMEAccount) -> None:
    world.pace = Pace(inline=0.1, look=60, later=60)
    world.start()
    world.services.state.account_index.mark_complete()
    script(world, WAITS)
    order = await finalized(world, account)
    assert order.status.state == "processing"
    await until(lambda: ready_of(world.stored(order))[0] == "WaitingForIssuer")
    script(world, certified)
    world.services.issuance.wake("kms-of-another-order")
    world.services.issuance.wake(ca(world).begun[0].name)
    assert (await ended(world, order)).status.state == "valid"


def _rejected(submission: Submission) -> Answer:
    return certified_as(submission, dns_name("www.example.com"), dns_name("evil.example.com"))


ENDS: dict[str, tuple[AuthorityType, list[Reply], int, str, ProblemType]] = {
    "denied": ("CertManager", [Denied(SECRET_WORDS)], 1, "Denied", ProblemType.UNAUTHORIZED),
    "denied signer": ("Signer", [Denied(SECRET_WORDS)], 1, "Denied", ProblemType.UNAUTHORIZED),
    "invalid": ("CertManager", [Refused(SECRET_WORDS)], 1, "RefusedByIssuer", ProblemType.BAD_CSR),
    "vault 400": ("Vault", [Refused(SECRET_WORDS)], 1, "RefusedByIssuer", ProblemType.BAD_CSR),
    "failed thrice": ("CertManager", [Failed(SECRET_WORDS)], 3, "IssuerFailed", ProblemType.SERVER_INTERNAL),
    "vault 500": ("Vault", [Failed(SECRET_WORDS)], 3, "IssuerFailed", ProblemType.SERVER_INTERNAL),
    "signer failed": (
        "Signer",
        [Failed(SECRET_WORDS, is_final=True)],
        1,
        "IssuerFailed",
        ProblemType.SERVER_INTERNAL,
    ),
    "rejected": ("CertManager", [_rejected], 1, "CertificateRejected", ProblemType.SERVER_INTERNAL),
}


@pytest.mark.requirement("X36", "X37", "X38", "X39", "SEC46")
@pytest.mark.parametrize("case", ENDS)
async def test_what_ends_an_order(world: World, account: ACMEAccount, case: str) -> None:
    type_, replies, attempts, reason, problem = ENDS[case]
    world.install_external(type_)
    script(world, *replies)
    order = await finalized(world, account)
    stored = await ended(world, order)
    assert (stored.status.state, len(ca(world).begun), ca(world).requests) == ("invalid", attempts, {})
    assert stored.status.error is not None
    assert (stored.status.error.type, ready_of(stored)[0]) == (problem.value, reason)
    assert "db-7" not in stored.status.error.detail
    assert case == "rejected" or "db-7" in ready_of(stored)[1]
    assert stored.status.certificate is None
    assert (stored.status.request, stored.status.issuance) == (None, None)


@pytest.mark.requirement("X37", "X38")
@pytest.mark.parametrize(
    "obstacle",
    [
        Pending("WaitingForApproval", "not approved"),
        Pending("Forbidden", "create is forbidden"),
        Pending("IssuerNotReady", "kind not served"),
        Pending("AuthenticationFailed", "permission denied"),
        CAUnavailable("sealed"),
    ],
)
async def test_what_may_pass_makes_the_order_wait(world: World, account: ACMEAccount, obstacle: Reply) -> None:
    script(world, obstacle)
    order = await finalized(world, account)
    assert order.status.state == "processing"
    wanted = obstacle.reason if isinstance(obstacle, Pending) else "Retrying"
    await until(lambda: ready_of(world.stored(order))[0] == wanted)
    script(world, certified)
    assert (await ended(world, order)).status.state == "valid"


@pytest.mark.requirement("X37")
async def test_a_second_attempt_after_a_failure_has_a_request_of_its_own(world: World, account: ACMEAccount) -> None:
    script(world, Failed("once"), certified)
    order = await finalized(world, account)
    await ended(world, order)
    names = [each.name for each in ca(world).begun]
    assert (world.stored(order).status.state, len(set(names)), ca(world).forgotten) == ("valid", 2, names)


@pytest.mark.requirement("X37", "X40", "SEC34")
async def test_an_order_does_not_wait_for_longer_than_the_ca_has_time(world: World, account: ACMEAccount) -> None:
    world.install_external(timeout="10m")
    script(world, WAITS)
    order = await finalized(world, account)
    world.clock.ahead = timedelta(minutes=10)
    stored = await ended(world, order)
    assert stored.status.error is not None
    assert (stored.status.error.type, stored.status.error.detail, ready_of(stored)[0]) == (
        "serverInternal",
        "The issuing CA did not answer within 10m.",
        "IssuerTimeout",
    )
    assert ca(world).requests == {}


@patient
@pytest.mark.requirement("X36", "X37")
async def test_vault_revokes_what_is_rejected(world: World, account: ACMEAccount) -> None:
    world.install_external("Vault")
    ca(world).takes_revocations = True
    script(world, _rejected)
    await finalized(world, account)
    assert len(ca(world).revoked) == 1


@pytest.mark.requirement("X25", "X37")
async def test_an_account_that_is_deactivated_meanwhile_gets_nothing(world: World, account: ACMEAccount) -> None:
    script(world, WAITS)
    order = await finalized(world, account)
    await world.services.accounts.update(world.caller(account), AccountUpdate(status="deactivated"))
    script(world, certified)
    stored = await ended(world, order)
    assert stored.status.error is not None
    assert (stored.status.state, stored.status.error.type) == ("invalid", "unauthorized")
    assert (stored.status.certificate, ca(world).requests) == (None, {})


@pytest.mark.requirement("X24", "X16", "X62")
async def test_another_replica_goes_on_from_what_is_stored(world: World, account: ACMEAccount) -> None:
    script(world, WAITS)
    order = await finalized(world, account)
    await world.services.issuance.drain(0)  # it dies
    script(world, certified)
    other = world.another()
    await other.services.orders.refresh(world.stored(order))
    assert world.stored(order).status.state == "processing"  # another replica may be at work
    world.clock.ahead = timedelta(seconds=31)
    await other.services.orders.finish(key_of(order))
    assert (await ended(other, order)).status.state == "valid"
    assert len({each.name for each in ca(world).begun}) == 1
    await other.services.issuance.drain(1)


@pytest.mark.requirement("X24", "X62")
async def test_two_replicas_at_one_order_store_one_certificate(world: World, account: ACMEAccount) -> None:
    script(world, WAITS)
    order = await finalized(world, account)
    other = world.another()
    world.clock.ahead = timedelta(seconds=31)
    await other.services.orders.finish(key_of(order))
    script(world, certified)
    await asyncio.gather(ended(world, order), ended(other, order))
    stored = world.stored(order)
    assert stored.status.state == "valid"
    for each in (world, other):
        assert (await each.services.orders.get(each.caller(account), order.metadata.name)).status == stored.status
    await other.services.issuance.drain(1)


def claimed_by(world: World, order: ACMEOrder, replica: str, **issuance: Any) -> ACMEOrder:
    """The stored order with the claim of another process, and that process gone."""
    stored = world.stored(order)
    assert stored.status.issuance is not None
    claim = Claim(replica=replica, time=world.clock())
    status = replace(stored.status, issuance=replace(stored.status.issuance, claim=claim, **issuance))
    return world.api.put(ORDERS, replace(stored, status=status))


@pytest.mark.requirement("X24")
@pytest.mark.parametrize(("replica", "after"), [("server-0/earlier", 0), ("server-9/any", 61)])
async def test_a_claim_is_replaced_before_vault_is_asked_again(
    world: World, account: ACMEAccount, replica: str, after: int
) -> None:
    world.install_external("Vault")
    script(world, WAITS)
    order = await finalized(world, account)
    await world.services.issuance.drain(0)
    claimed_by(world, order, replica)
    world.start()
    asked = len(ca(world).begun)
    world.clock.ahead = timedelta(seconds=after)
    script(world, certified)
    await world.services.orders.finish(key_of(order))
    stored = await ended(world, order)
    assert (stored.status.state, [each.attempt for each in ca(world).begun[asked:]]) == ("valid", [2])
    assert counted(world.metrics, "issuer_attempts")["vault", "ambiguous"] == 1


@pytest.mark.requirement("X24")
async def test_while_another_process_has_the_claim_vault_is_not_asked(world: World, account: ACMEAccount) -> None:
    world.install_external("Vault")
    script(world, WAITS)
    order = await finalized(world, account)
    await world.services.issuance.drain(0)
    world.clock.ahead = timedelta(seconds=31)
    claimed_by(world, order, "server-9/any")
    world.start()
    asked = len(ca(world).begun)
    await world.services.orders.finish(key_of(order))
    await asyncio.sleep(0.1)
    assert (len(ca(world).begun), world.stored(order).status.state) == (asked, "processing")
    await world.services.issuance.drain(0)


@pytest.mark.requirement("X26")
async def test_more_orders_than_the_ca_takes_wait_in_the_order_of_arrival(world: World, account: ACMEAccount) -> None:
    world.install_external(maximum_requests=2)  # one of them for one account: two at once may overtake each other
    script(world, WAITS)
    orders = [await finalized(world, account, f"host-{number}.example.com") for number in range(4)]
    assert len(ca(world).begun) == 1
    await until(lambda: "maximumRequests" in ready_of(world.stored(orders[3]))[1])
    script(world, certified)
    for each in orders:
        assert (await ended(world, each)).status.state == "valid"
    assert [each.order for each in ca(world).begun] == [key_of(each) for each in orders]


@pytest.mark.requirement("X25", "SEC35")
async def test_a_certificate_survives_that_the_api_server_is_away(world: World, account: ACMEAccount) -> None:
    world.install_external("Vault")
    script(world, WAITS)
    order = await finalized(world, account)
    world.api.fail_next("*", ORDERS.plural, 503, times=3)
    script(world, certified)
    assert (await ended(world, order)).status.state == "valid"
    assert len(ca(world).begun) == 1


@pytest.mark.requirement("X37")
async def test_a_profile_that_got_another_ca_meanwhile_ends_the_order(world: World, account: ACMEAccount) -> None:
    script(world, WAITS)
    order = await finalized(world, account)
    world.install_authority()
    assert ready_of(await ended(world, order))[0] == "IssuerFailed"


@pytest.mark.requirement("X40")
async def test_a_bug_in_an_issuer_ends_the_order_too(world: World, account: ACMEAccount) -> None:
    def broken(_: Submission) -> Answer:
        raise ZeroDivisionError

    script(world, broken)
    order = await finalized(world, account)
    assert ready_of(await ended(world, order))[0] == "IssuerFailed"


@pytest.mark.requirement("X12")
async def test_an_order_that_is_deleted_is_not_worked_at_any_more(world: World, account: ACMEAccount) -> None:
    async with watching(world):
        script(world, WAITS)
        order = await finalized(world, account)
        world.api.remove(ORDERS, *key_of(order))
        await until(lambda: not world.services.issuance.is_working_at(key_of(order)), seconds=10)
    assert ca(world).requests == {}


@patient
@pytest.mark.requirement("X47")
async def test_issuances_are_counted_by_issuer_and_result(world: World, account: ACMEAccount) -> None:
    await finalized(world, account)
    script(world, Denied("no"))
    await finalized(world, account, "other.example.com")
    assert counted(world.metrics, "issuance_duration_seconds") == {
        ("certManager", "signed"): 1,
        ("certManager", "denied"): 1,
    }
    assert counted(world.metrics, "issuer_attempts") == {("certManager", "returned"): 1, ("certManager", "denied"): 1}


@pytest.mark.requirement("X43", "X42")
@patient
async def test_renewal_is_asked_for_by_the_name_of_the_ca(world: World, account: ACMEAccount) -> None:
    world.services.state.order_index.mark_complete()
    order = await finalized(world, account)
    status = order.status
    identifier = str(CertificateId(status.authority_key_id or "", status.serial_number or ""))
    before = world.services.renewals.info(world.profile, identifier).window
    assert before.start > world.clock()
    known = world.authorities.get("pki", "ca")
    assert known is not None
    renew = replace(known.spec, renew_issued_before=world.clock() + timedelta(seconds=1))
    for name, is_early in (("another", False), ("ca", True)):
        world.authorities.put(replace(known, metadata=replace(known.metadata, name=name, uid=name), spec=renew))
        window = world.services.renewals.info(world.profile, identifier).window
        assert (window.start <= world.clock() + timedelta(seconds=1)) == is_early


@pytest.mark.requirement("X46", "X9")
@patient
async def test_what_relying_parties_get_of_an_external_ca(world: World, account: ACMEAccount) -> None:
    world.remove_authority_key()  # of an internal CA that had the name before
    crls = world.services.crls
    assert "somebody else" in (await refusal(crls.current("pki", "ca"))).detail
    with pytest.raises(NotFound, match="does not know"):
        crls.ca_certificate("pki", "ca")
    await finalized(world, account)
    issuing = FOREIGN_CA.certificate
    assert crls.ca_certificate("pki", "ca").der == issuing.public_bytes(Encoding.DER)
    world.install_external("Vault")
    chain = "".join(each.public_bytes(Encoding.PEM).decode() for each in (issuing, *FOREIGN_CA.issuers))
    vault = world.authorities.get("pki", "ca")
    assert vault is not None
    world.authorities.put(replace(vault, status=replace(vault.status, chain=chain)))
    assert crls.ca_certificate("pki", "ca").der == issuing.public_bytes(Encoding.DER)
