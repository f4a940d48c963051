from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.orders.issuance_waiting import (
    GiveUp,
    Obstacle,
    Schedule,
    Step,
    TryAgain,
    Wait,
    again,
    asked_duration,
    begun,
    given_up,
    next_step,
    retry_after,
    waiting,
)
from acme_server.problems import ProblemType, Refused
from kms.issuers.protocol import Denied, Failed, Pending, Unavailable, request_name
from kms.issuers.protocol import Refused as RefusedByCA
from kms.pki.returned import Rejected
from kms.resources.meta import condition
from kms.resources.orders import ACMEOrder, AskedAuthority, Claim, Issuance
from tests.support.acmeorders import DIGEST, NOW, OTHER_DIGEST, issued, order, proven

TIMEOUT = timedelta(minutes=10)
CORPORATE = AskedAuthority(name="corporate", type="CertManager")
CLAIM = Claim(replica="pod-a:8443/l9", time=NOW)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def step(obstacle: Obstacle, *, attempt: int = 1, after: timedelta = timedelta(seconds=20), **fields: object) -> Step:
    issuance = replace(Issuance(attempt=attempt), **fields)
    return next_step(issuance, obstacle, accepted=NOW, timeout=TIMEOUT, now=NOW + after)


def asked(claim: Claim | None = None) -> tuple[ACMEOrder, Issuance]:
    """An order that waits for its first attempt."""
    waits = begun(proven(order()), b"csr", DIGEST, authority=CORPORATE, claim=claim, now=NOW)
    assert waits.status.issuance is not None
    return waits, waits.status.issuance


def ready(order: ACMEOrder) -> tuple[str, str]:
    found = condition(order.status.conditions, "Ready")
    assert found is not None
    return found.reason, found.message


@pytest.mark.requirement("X37", "X38", "X39")
@pytest.mark.parametrize(
    ("obstacle", "type_", "reason", "detail"),
    [
        (Denied("no"), "unauthorized", "Denied", "An administrator's policy denied the request."),
        (RefusedByCA("no"), "badCSR", "RefusedByIssuer", "The issuing CA refused the certificate request."),
        (Failed("no", is_final=True), "serverInternal", "IssuerFailed", "The issuing CA could not issue"),
        (Rejected("KeyMismatch", "no"), "serverInternal", "CertificateRejected", "does not fit the order."),
    ],
)
def test_what_does_not_pass_by_itself_ends_the_order(obstacle: Obstacle, type_: str, reason: str, detail: str) -> None:
    found = step(obstacle)
    assert isinstance(found, GiveUp)
    assert (found.type.value, found.reason) == (type_, reason)
    assert detail in found.detail
    assert "no" in found.message


@pytest.mark.requirement("X37")
@pytest.mark.parametrize(("attempt", "delay"), [(1, seconds(10)), (2, seconds(60)), (3, None)])
def test_a_failure_gets_three_attempts(attempt: int, delay: timedelta | None) -> None:
    found = step(Failed("no"), attempt=attempt)
    if delay is None:
        assert isinstance(found, GiveUp)
        assert found.reason == "IssuerFailed"
    else:
        assert found == TryAgain(NOW + seconds(20) + delay, "no")


@pytest.mark.requirement("X37")
@pytest.mark.parametrize(("attempt", "delay"), [(1, 5), (2, 10), (4, 40), (5, 60), (6, 60), (1000, 60)])
def test_a_ca_that_cannot_be_asked_is_asked_again_and_again(attempt: int, delay: int) -> None:
    assert step(Unavailable("no"), attempt=attempt) == TryAgain(NOW + seconds(20 + delay), "no")


@pytest.mark.requirement("X37")
def test_an_order_waits_for_what_passes() -> None:
    assert step(Pending("WaitingForApproval", "no")) == Wait("WaitingForApproval", "no")


@pytest.mark.requirement("X37", "X40")
@pytest.mark.parametrize("obstacle", [Pending("Forbidden", "no"), Unavailable("no", is_ambiguous=True)])
@pytest.mark.parametrize("after", [TIMEOUT, TIMEOUT + seconds(60)])
def test_the_time_of_an_order_is_limited(obstacle: Obstacle, after: timedelta) -> None:
    found = step(obstacle, after=after)
    assert isinstance(found, GiveUp)
    assert (found.reason, found.detail) == ("IssuerTimeout", "The issuing CA did not answer within 10m.")


@pytest.mark.requirement("X40")
def test_no_attempt_begins_after_the_end() -> None:
    late = step(Unavailable("no"), attempt=5, after=TIMEOUT - seconds(3))
    assert late == TryAgain(NOW + TIMEOUT, "no")
    failed = step(Failed("no"), attempt=2, after=TIMEOUT - seconds(30))
    assert isinstance(failed, GiveUp)
    assert failed.reason == "IssuerFailed"


@pytest.mark.requirement("X36")
def test_a_certificate_that_outlives_its_ca_gets_one_more_attempt() -> None:
    ends = NOW + timedelta(days=3)
    rejected = Rejected("OutlivesAuthority", "no", ends=ends)
    assert step(rejected) == TryAgain(NOW + seconds(20), "no", ends)
    assert isinstance(step(rejected, attempt=2, not_after=ends), GiveUp)


@pytest.mark.requirement("X36")
def test_the_shorter_end_holds_for_later_attempts_too() -> None:
    ends = NOW + timedelta(days=3)
    for obstacle in (Failed("no"), Unavailable("no")):
        found = step(obstacle, attempt=2, not_after=ends)
        assert isinstance(found, TryAgain)
        assert found.not_after == ends


@pytest.mark.requirement("X37", "X38", "X40")
@given(
    obstacle=st.one_of(
        st.builds(Pending, st.just("WaitingForIssuer"), st.text()),
        st.builds(Unavailable, st.text(), st.booleans()),
        st.builds(Failed, st.text(), st.booleans()),
        st.builds(Denied, st.text()),
        st.builds(RefusedByCA, st.text()),
        st.builds(Rejected, st.sampled_from(["KeyMismatch", "OutlivesAuthority"]), st.text()),
    ),
    attempt=st.integers(1, 10_000),
    after=st.timedeltas(timedelta(0), timedelta(days=8)),
    timeout=st.timedeltas(seconds(30), timedelta(hours=168)),
)
def test_every_answer_at_every_time_means_something(
    obstacle: Obstacle, attempt: int, after: timedelta, timeout: timedelta
) -> None:
    now = NOW + after
    found = next_step(Issuance(attempt=attempt), obstacle, accepted=NOW, timeout=timeout, now=now)
    if isinstance(found, TryAgain):
        assert now <= found.not_before <= max(now, NOW + timeout)
    if after >= timeout:
        assert isinstance(found, GiveUp)
    if isinstance(obstacle, Pending | Unavailable | Failed | Rejected):
        assert not isinstance(found, GiveUp) or found.type is ProblemType.SERVER_INTERNAL


@pytest.mark.requirement("X22")
@pytest.mark.parametrize(("waited", "after"), [(0, 1), (9.9, 1), (10, 5), (59, 5), (60, 30), (86_400, 30)])
def test_clients_ask_less_often_the_longer_it_takes(waited: float, after: int) -> None:
    assert retry_after(seconds(waited)) == after


@pytest.mark.requirement("X18")
def test_the_shortest_time_is_asked_for() -> None:
    month, day = timedelta(days=30), timedelta(days=1)
    assert asked_duration(month, maximum=90 * day, ends=(), now=NOW) == month
    assert asked_duration(month, maximum=day, ends=(None,), now=NOW) == day
    assert asked_duration(month, maximum=90 * day, ends=(NOW + 2 * day, None), now=NOW) == 2 * day
    assert asked_duration(month, maximum=month, ends=(NOW + seconds(90.7),), now=NOW) == seconds(90)
    assert asked_duration(month, maximum=month, ends=(NOW - day,), now=NOW) <= timedelta(0)


@pytest.mark.requirement("X15")
def test_the_order_says_who_is_asked_before_anything_is_sent() -> None:
    waits, issuance = asked(CLAIM)
    status = waits.status
    assert (status.state, status.request, status.csr_digest, status.accepted) == ("processing", b"csr", DIGEST, NOW)
    assert status.authority == CORPORATE
    name = request_name(uid=waits.metadata.uid, digest=DIGEST, attempt=1)
    assert issuance == Issuance(attempt=1, request=name, claim=CLAIM)


@pytest.mark.requirement("X15", "C9")
def test_the_same_csr_is_a_repetition_and_another_one_is_refused() -> None:
    waits, _ = asked()
    assert begun(waits, b"csr", DIGEST, authority=CORPORATE, now=NOW + seconds(9)) == waits
    with pytest.raises(Refused):
        begun(waits, b"other", OTHER_DIGEST, authority=CORPORATE, now=NOW)


@pytest.mark.requirement("X16", "X24")
def test_of_replicas_that_try_again_one_succeeds() -> None:
    waits, seen = asked()
    tries = TryAgain(NOW + seconds(10), "sealed", NOW + timedelta(days=1))
    second = again(waits, seen, tries, claim=CLAIM, now=NOW)
    assert second.status.issuance == Issuance(
        attempt=2,
        request=request_name(uid=waits.metadata.uid, digest=DIGEST, attempt=2),
        claim=CLAIM,
        not_before=NOW + seconds(10),
        not_after=NOW + timedelta(days=1),
    )
    assert ready(second) == ("Retrying", "sealed")
    assert again(second, seen, tries, now=NOW) == second


def test_the_words_of_a_ca_are_short_and_on_one_line() -> None:
    waits, seen = asked()
    told = waiting(waits, seen, Wait("WaitingForIssuer", "a\nb\x1b[31m\u202ec" + "d" * 300), now=NOW)
    reason, message = ready(told)
    assert reason == "WaitingForIssuer"
    assert message.startswith("a b[31mcd")
    assert len(message) == 256


def test_waiting_for_the_same_thing_writes_nothing() -> None:
    waits, seen = asked()
    told = waiting(waits, seen, Wait("WaitingForApproval", "a"), now=NOW)
    assert waiting(told, seen, Wait("WaitingForApproval", "a"), now=NOW + seconds(30)) == told
    assert waiting(told, seen, Wait("WaitingForIssuer", "a"), now=NOW) != told


@pytest.mark.requirement("X39")
def test_a_client_gets_no_words_of_the_ca() -> None:
    waits, seen = asked()
    given = step(RefusedByCA("role web does not allow secret.example.com"))
    assert isinstance(given, GiveUp)
    ended = given_up(waits, seen, given, now=NOW)
    assert ended.status.state == "invalid"
    assert ended.status.error is not None
    assert (ended.status.error.type, ended.status.error.detail) == (given.type.value, given.detail)
    assert ready(ended) == ("RefusedByIssuer", "role web does not allow secret.example.com")


@pytest.mark.parametrize("end", ["issued", "failed", "given up"])
def test_an_order_that_has_ended_keeps_whom_it_asked_and_nothing_else(end: str) -> None:
    waits, seen = asked(CLAIM)
    given = GiveUp(ProblemType.SERVER_INTERNAL, "detail", "IssuerFailed", "message")
    ended = {
        "issued": lambda: transitions.issued(waits, DIGEST, issued(), now=NOW),
        "failed": lambda: transitions.relinquished(waits, {0: "deactivated"}, now=NOW),
        "given up": lambda: given_up(waits, seen, given, now=NOW),
    }[end]()
    assert ended.status.authority == CORPORATE
    assert (ended.status.issuance, ended.status.request) == (None, None)
    assert given_up(ended, seen, given, now=NOW) == ended
    assert again(ended, seen, TryAgain(NOW, ""), now=NOW) == ended
    assert waiting(ended, seen, Wait("WaitingForIssuer", ""), now=NOW) == ended


def test_other_paces_may_be_set() -> None:
    quick = Schedule(after_failures=(seconds(1),), shortest=seconds(2), longest=seconds(3))
    assert [quick.after_failure(attempt) for attempt in (1, 2)] == [seconds(1), None]
    assert [quick.while_unavailable(attempt) for attempt in (1, 2, 3)] == [seconds(2), seconds(3), seconds(3)]
