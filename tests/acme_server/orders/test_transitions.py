from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

from acme_server.api.problems import status_of
from acme_server.model import ChallengeId, Failed, Outcome, Valid
from acme_server.orders import transitions
from acme_server.problems import ProblemType, Refused
from kms.cluster.codec import encode
from kms.resources.kinds import ORDERS
from kms.resources.meta import condition
from kms.resources.orders import (
    ACMEOrder,
    ChallengeType,
    OrderStatus,
    StoredProblem,
    StoredSubProblem,
    challenge_of,
    with_authorizations,
)
from tests.support.acmeorders import DIGEST, LIFETIME, NOW, OTHER_DIGEST, issued, order

LATER = NOW + timedelta(minutes=1)
REFUSED = Failed(StoredProblem(type="unauthorized", detail="nobody there"))
NONE = timedelta(0)


def id_(position: int) -> ChallengeId:
    return ChallengeId(position, "http-01")


def proven(*positions: int) -> dict[ChallengeId, Outcome]:
    return {id_(position): Valid(LATER) for position in positions}


def ready(*names: str) -> ACMEOrder:
    fresh = order(*names)
    return transitions.validated(fresh, proven(*range(len(fresh.spec.identifiers))), lifetime=NONE, now=LATER)


def not_ready(refused: pytest.ExceptionInfo[Refused]) -> str:
    assert refused.value.type == ProblemType.ORDER_NOT_READY
    assert status_of(refused.value) == 403
    return refused.value.detail


@pytest.mark.requirement("M68")
def test_an_order_is_ready_when_all_its_authorizations_are_valid() -> None:
    pending = transitions.validated(order("a.example", "b.example"), proven(0), lifetime=NONE, now=LATER)
    assert pending.status.state == "pending"
    assert [each.state for each in pending.status.authorizations] == ["valid", "pending"]
    assert transitions.validated(pending, proven(1), lifetime=NONE, now=LATER).status.state == "ready"


@pytest.mark.requirement("M130", "M143")
def test_a_valid_challenge_says_when_and_its_authorization_until_when() -> None:
    authorization = ready().status.authorizations[0]
    assert authorization.challenges[0].validated == LATER
    assert authorization.challenges[0].error is None
    assert authorization.expires == NOW + LIFETIME
    longer = transitions.validated(order(), proven(0), lifetime=2 * LIFETIME, now=LATER)
    assert longer.status.authorizations[0].expires == LATER + 2 * LIFETIME


@pytest.mark.requirement("M60", "M69")
def test_one_failure_makes_the_order_invalid_and_says_why() -> None:
    failed = transitions.validated(order("a.example", "b.example"), {id_(1): REFUSED}, lifetime=NONE, now=LATER)
    assert failed.status.state == "invalid"
    assert [each.state for each in failed.status.authorizations] == ["pending", "invalid"]
    assert failed.status.authorizations[1].challenges[0].error == REFUSED.problem
    assert failed.status.error is not None
    assert failed.status.error.type == "unauthorized"
    assert failed.status.error.detail == "b.example: nobody there"
    seen = condition(failed.status.conditions, "Ready")
    assert seen is not None
    assert (seen.status, seen.reason) == ("False", "AuthorizationFailed")


@pytest.mark.requirement("S46")
def test_several_failures_are_told_one_by_one() -> None:
    outcomes: dict[ChallengeId, Outcome] = {id_(0): REFUSED, id_(1): REFUSED, id_(2): Valid(LATER)}
    failed = transitions.validated(order("a.example", "b.example", "c.example"), outcomes, lifetime=NONE, now=LATER)
    assert failed.status.error is not None
    assert failed.status.error.detail == "2 authorizations failed. a.example: nobody there"
    assert failed.status.error.subproblems == ()
    told = transitions.subproblems_of(failed)
    assert [each.identifier and each.identifier.value for each in told] == ["a.example", "b.example"]


def offered(*names: str) -> ACMEOrder:
    """A pending order whose tokens are derived, for all types of challenges."""
    one = order(*names)
    types: tuple[ChallengeType, ...] = ("http-01", "dns-01", "tls-alpn-01")
    spec = replace(one.spec, tokens=(), challenges=types, token_key="k" * 43)
    return with_authorizations(replace(one, spec=spec, status=OrderStatus()))


@pytest.mark.requirement("SEC72")
def test_a_failure_is_stored_once_and_what_was_not_tried_not_at_all() -> None:
    names = [f"host-{number:03}.{'l' * 63}.example" for number in range(100)]
    text = "http://{} answered with status 404 instead of 200. (5 attempts)"
    attempts = tuple(StoredSubProblem(type="unauthorized", detail=text.format(names[0])) for _ in range(4))
    outcomes: dict[ChallengeId, Outcome] = {
        id_(position): Failed(
            StoredProblem(type="unauthorized", detail=text.format(names[position]), subproblems=attempts)
        )
        for position in range(99)
    }
    pending = transitions.begun(offered(*names), {id_(99): None}, attempt="server/1", now=LATER)
    failed = transitions.validated(pending, outcomes, lifetime=NONE, now=LATER)
    last = failed.status.authorizations[99]
    assert (failed.status.state, last.state, last.challenges) == ("invalid", "pending", ())
    stored = encode(ORDERS, failed).decode()
    assert stored.count("answered with status 404") == 99 + 2  # each challenge; the order and its condition
    assert len(stored) < 60_000  # 122,914 when each attempt was stored, and each failure again with the order
    shown = with_authorizations(msgspec.json.decode(encode(ORDERS, failed), type=ACMEOrder))
    assert [each.type for each in shown.status.authorizations[99].challenges] == ["http-01", "dns-01", "tls-alpn-01"]
    assert len(transitions.subproblems_of(shown)) == 99


def test_a_challenge_that_was_not_tried_is_still_there_for_a_client_that_reads_it() -> None:
    proven_by_http = transitions.validated(offered(), proven(0), lifetime=NONE, now=LATER)
    assert [each.type for each in proven_by_http.status.authorizations[0].challenges] == ["http-01"]
    untried = challenge_of(proven_by_http, 0, "dns-01")
    assert untried is not None
    assert untried.state == "pending"
    assert challenge_of(proven_by_http, 0, "dns-02") is None


def test_an_error_is_stored_up_to_a_length() -> None:
    endless = Failed(StoredProblem(type="unauthorized", detail="x" * 9_000))
    failed = transitions.validated(order(), {id_(0): endless}, lifetime=NONE, now=LATER)
    error = failed.status.authorizations[0].challenges[0].error
    assert error is not None
    assert len(error.detail) == 512
    assert failed.status.error is not None
    assert len(failed.status.error.detail) <= 512


@pytest.mark.requirement("M66", "M67", "SEC51")
def test_a_late_outcome_does_not_revive_an_invalid_authorization() -> None:
    failed = transitions.validated(order(), {id_(0): REFUSED}, lifetime=NONE, now=LATER)
    assert transitions.validated(failed, proven(0), lifetime=NONE, now=LATER) == failed


@pytest.mark.requirement("M67", "SEC51")
def test_a_late_failure_does_not_take_a_proof_back() -> None:
    pending = transitions.validated(order("a.example", "b.example"), proven(0), lifetime=NONE, now=LATER)
    assert transitions.validated(pending, {id_(0): REFUSED}, lifetime=NONE, now=LATER) == pending
    assert transitions.validated(ready(), {id_(0): REFUSED}, lifetime=NONE, now=LATER) == ready()


@pytest.mark.requirement("M66", "M135")
def test_a_deactivated_authorization_is_not_validated_any_more() -> None:
    given_up = transitions.deactivated(order(), 0, now=LATER)
    assert given_up.status.state == "invalid"
    assert transitions.validated(given_up, proven(0), lifetime=NONE, now=LATER) == given_up


@pytest.mark.requirement("M69", "M135")
def test_a_deactivated_authorization_takes_a_ready_order_with_it() -> None:
    given_up = transitions.deactivated(ready("a.example", "b.example"), 1, now=LATER)
    assert given_up.status.state == "invalid"
    assert [each.state for each in given_up.status.authorizations] == ["valid", "deactivated"]


def test_deactivating_an_authorization_leaves_a_certificate_alone() -> None:
    valid = transitions.issued(ready(), DIGEST, issued(), now=LATER)
    changed = transitions.deactivated(valid, 0, now=LATER)
    assert changed.status.state == "valid"
    assert changed.status.certificate == valid.status.certificate


@pytest.mark.requirement("M143", "S145")
def test_validation_that_goes_on_is_written_with_who_does_it_and_what_went_wrong() -> None:
    running = {id_(0): REFUSED.problem}
    begun = transitions.begun(order("a.example", "b.example"), running, attempt="server-0/1", now=LATER)
    first, second = (each.challenges[0] for each in begun.status.authorizations)
    assert (first.state, first.attempt, first.started, first.error) == (
        "processing",
        "server-0/1",
        LATER,
        REFUSED.problem,
    )
    assert second.state == "pending"
    again = transitions.begun(begun, running, attempt="server-0/1", now=LATER + LIFETIME)
    assert again == begun
    taken_over = transitions.begun(begun, running, attempt="server-1/1", now=LATER + LIFETIME)
    assert taken_over.status.authorizations[0].challenges[0].started == LATER + LIFETIME


@pytest.mark.requirement("M133", "SEC51")
def test_a_settled_challenge_is_not_begun_again() -> None:
    for settled in (ready(), transitions.validated(order(), {id_(0): REFUSED}, lifetime=NONE, now=LATER)):
        assert transitions.begun(settled, {id_(0): None}, attempt="x/1", now=LATER) == settled
        assert transitions.shown_as_running(settled, {id_(0): None}) == settled


@pytest.mark.requirement("M132")
def test_what_is_under_way_is_shown_as_processing() -> None:
    shown = transitions.shown_as_running(order(), {id_(0): None})
    assert shown.status.authorizations[0].challenges[0].state == "processing"
    assert shown.status.state == "pending"


@pytest.mark.requirement("M113")
def test_only_a_ready_order_can_be_finalized() -> None:
    for state, now in (
        (order(), LATER),
        (transitions.validated(order(), {id_(0): REFUSED}, lifetime=NONE, now=LATER), LATER),
    ):
        for event in (
            lambda now=now, state=state: transitions.require_ready(state, now=now),
            lambda now=now, state=state: transitions.accepted(state, b"csr", DIGEST, now=now),
            lambda now=now, state=state: transitions.issued(state, DIGEST, issued(), now=now),
        ):
            with pytest.raises(Refused) as refused:
                event()
            assert f"The order is {state.status.state}" in not_ready(refused)


def test_the_refusal_to_finalize_an_invalid_order_says_why_it_is_invalid() -> None:
    failed = transitions.validated(order(), {id_(0): REFUSED}, lifetime=NONE, now=LATER)
    with pytest.raises(Refused) as refused:
        transitions.require_ready(failed, now=LATER)
    assert "nobody there" in not_ready(refused)


@pytest.mark.requirement("M116")
def test_an_accepted_request_is_kept_until_the_certificate_is_there() -> None:
    processing = transitions.accepted(ready(), b"csr", DIGEST, now=LATER)
    assert processing.status.state == "processing"
    assert (processing.status.request, processing.status.accepted) == (b"csr", LATER)
    assert transitions.accepted(processing, b"csr", DIGEST, now=LATER + LIFETIME) == processing
    valid = transitions.issued(processing, DIGEST, issued(), now=LATER)
    assert (valid.status.request, valid.status.accepted) == (None, None)
    assert valid.status.csr_digest == DIGEST


@pytest.mark.requirement("M113", "SEC27", "C9")
def test_another_request_after_the_first_is_refused() -> None:
    processing = transitions.accepted(ready(), b"csr", DIGEST, now=LATER)
    valid = transitions.issued(ready(), DIGEST, issued(), now=LATER)
    for moved_on in (processing, valid):
        assert transitions.is_replay(moved_on, DIGEST)
        assert not transitions.is_replay(moved_on, OTHER_DIGEST)
        with pytest.raises(Refused) as refused:
            transitions.accepted(moved_on, b"other", OTHER_DIGEST, now=LATER)
        not_ready(refused)
        with pytest.raises(Refused) as refused:
            transitions.issued(moved_on, OTHER_DIGEST, issued("666"), now=LATER)
        not_ready(refused)


def test_the_first_certificate_stays() -> None:
    valid = transitions.issued(ready(), DIGEST, issued("1"), now=LATER)
    assert transitions.issued(valid, DIGEST, issued("2"), now=LATER) == valid
    seen = condition(valid.status.conditions, "Ready")
    assert seen is not None
    assert (seen.status, seen.reason) == ("True", "Issued")


@pytest.mark.requirement("S109", "SEC67")
def test_an_order_that_was_not_finalized_in_time_is_invalid() -> None:
    late = NOW + LIFETIME + timedelta(minutes=6)
    for open_ in (order(), ready()):
        ended = transitions.expired(open_, now=late)
        assert ended.status.state == "invalid"
        assert [each.state for each in ended.status.authorizations] == ["expired"]
        assert ended.status.error is not None
        assert "expired" in ended.status.error.detail


@pytest.mark.requirement("SEC67")
def test_clocks_may_differ_by_five_minutes() -> None:
    almost = NOW + LIFETIME + timedelta(minutes=4)
    assert transitions.expired(ready(), now=almost) == ready()
    transitions.require_ready(ready(), now=almost)


def test_an_order_that_outlives_its_own_end_only_by_its_authorizations_ends_too() -> None:
    longer = transitions.validated(order(), proven(0), lifetime=10 * LIFETIME, now=LATER)
    late = NOW + LIFETIME + timedelta(minutes=6)
    ended = transitions.expired(longer, now=late)
    assert ended.status.state == "invalid"
    assert ended.status.authorizations[0].state == "valid"
    seen = condition(ended.status.conditions, "Ready")
    assert seen is not None
    assert seen.reason == "Expired"
    with pytest.raises(Refused) as refused:
        transitions.require_ready(longer, now=late)
    assert "expired" in not_ready(refused)


@pytest.mark.requirement("M69", "SEC67")
def test_a_proof_that_holds_no_longer_is_no_proof_even_of_a_ready_order() -> None:
    authorizations = tuple(replace(each, expires=NOW) for each in ready().status.authorizations)
    stale = replace(ready(), status=replace(ready().status, authorizations=authorizations))
    with pytest.raises(Refused) as refused:
        transitions.require_ready(stale, now=NOW + timedelta(minutes=6))
    assert "www.example.com" in not_ready(refused)
    assert transitions.expired(stale, now=NOW + timedelta(minutes=6)).status.state == "invalid"


def test_time_does_not_end_what_was_accepted_or_has_ended() -> None:
    late = NOW + 100 * LIFETIME
    processing = transitions.accepted(ready(), b"csr", DIGEST, now=LATER)
    valid = transitions.issued(ready(), DIGEST, issued(), now=LATER)
    for other in (processing, valid):
        assert transitions.expired(other, now=late) == other


def test_a_failure_ends_open_orders_and_no_others() -> None:
    problem = StoredProblem(type="serverInternal", detail="x" * 5000)
    ended = transitions.failed(
        transitions.accepted(ready(), b"csr", DIGEST, now=LATER), problem, reason="IssuanceFailed", now=LATER
    )
    assert ended.status.state == "invalid"
    assert ended.status.request is None
    valid = transitions.issued(ready(), DIGEST, issued(), now=LATER)
    assert transitions.failed(valid, problem, reason="X", now=LATER) == valid


def test_an_invalid_authorization_without_an_error_still_ends_its_order_with_one() -> None:
    authorizations = tuple(replace(each, state="revoked") for each in order().status.authorizations)
    tampered = replace(order(), status=replace(order().status, authorizations=authorizations))
    ended = transitions.expired(tampered, now=LATER)
    assert ended.status.state == "invalid"
    assert ended.status.error is not None
    assert "revoked" in ended.status.error.detail
