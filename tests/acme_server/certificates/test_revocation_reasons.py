from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from acme_server.api.problems import status_of
from acme_server.certificates.revocation_reasons import (
    LIFETIME,
    LISTED_FOR,
    REFRESH,
    SUBSCRIBER_REASONS,
    hour_of,
    list_template,
    subscriber_reason,
)
from acme_server.orders import transitions
from acme_server.problems import ProblemType, Refused
from acme_server.state.certificates import CertificateRecord
from acme_server.state.retention import kept_until
from kms.pki.crl import encode_entry
from kms.resources.meta import condition
from kms.resources.orders import Revocation
from tests.support.acmeorders import NOW, certified, order

HOUR = NOW.replace(minute=0)
SECONDS = st.integers(min_value=0, max_value=3 * 3600)


def revoked_certificate(serial: int, time: datetime, reason: str = "superseded", **changes: Any) -> CertificateRecord:
    values: dict[str, Any] = {
        "order": ("pki", f"order-{serial}"),
        "profile": "web",
        "account": "account",
        "serial_number": f"{serial:x}",
        "authority_key_id": "ab",
        "issuer": "ab",
        "names": b"",
        "not_before": NOW - timedelta(days=1),
        "not_after": NOW + timedelta(days=30),
        "issued_at": NOW,
        "revocation": Revocation(time=time, reason=reason),
    }
    return CertificateRecord(**values | changes)


def refused(call: Any, *arguments: Any, **more: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        call(*arguments, **more)
    return caught.value


def test_revoked_says_when_and_why_and_leaves_the_order_valid() -> None:
    after = transitions.revoked(certified(), "superseded", now=NOW)
    assert after.status.revocation == Revocation(time=NOW, reason="superseded")
    assert after.status.state == "valid"
    assert after.status.certificate == certified().status.certificate
    ready = condition(after.status.conditions, "Ready")
    assert ready is not None
    assert (ready.status, ready.reason, ready.last_transition_time) == ("False", "Revoked", NOW)
    assert ready.message == "The certificate was revoked at 2026-11-23T12:00:00Z, with the reason superseded."


@pytest.mark.requirement("M139")
def test_what_was_revoked_stays_revoked_as_it_was() -> None:
    after = transitions.revoked(certified(), "superseded", now=NOW)
    for reason, by_key in (("superseded", False), ("keyCompromise", False), ("superseded", True)):
        error = refused(transitions.revoked, after, reason, by_key=by_key, now=NOW + timedelta(hours=1))
        assert (error.type, error.detail) == (
            ProblemType.ALREADY_REVOKED,
            "The certificate is revoked already.",
        )


@pytest.mark.requirement("SEC25")
def test_the_proof_that_a_key_is_compromised_raises_the_reason_once() -> None:
    before = transitions.revoked(certified(), "superseded", now=NOW)
    after = transitions.revoked(before, "keyCompromise", by_key=True, now=NOW + timedelta(hours=1))
    assert after.status.revocation == Revocation(time=NOW, reason="keyCompromise")
    error = refused(transitions.revoked, after, "keyCompromise", by_key=True, now=NOW)
    assert error.type is ProblemType.ALREADY_REVOKED


def test_an_order_without_a_certificate_has_nothing_to_revoke() -> None:
    assert status_of(refused(transitions.revoked, order(), "superseded", now=NOW)) == 404


@pytest.mark.requirement("M140", "SEC22")
@given(st.integers())
def test_a_reason_is_one_that_subscribers_may_use_or_refused(code: int) -> None:
    if code in {0, 1, 3, 4, 5}:
        assert subscriber_reason(code) == SUBSCRIBER_REASONS[code]
    else:
        assert refused(subscriber_reason, code).type is ProblemType.BAD_REVOCATION_REASON


@pytest.mark.requirement("S141")
def test_no_reason_is_unspecified() -> None:
    assert subscriber_reason(None) == "unspecified"


@pytest.mark.requirement("SEC60")
def test_a_list_lasts_far_longer_than_until_the_next() -> None:
    template = list_template((), now=NOW + timedelta(minutes=59))
    assert (template.this_update, template.next_update) == (HOUR, HOUR + LIFETIME)
    assert LIFETIME > 10 * REFRESH


@pytest.mark.requirement("SEC61")
def test_a_certificate_leaves_the_list_after_its_end_and_only_on_the_hour() -> None:
    end = NOW + timedelta(minutes=20)
    gone = revoked_certificate(5, NOW, not_after=end)
    last = end + LISTED_FOR
    assert len(list_template((gone,), now=last).entries) == 1
    assert len(list_template((gone,), now=hour_of(last) + timedelta(minutes=59)).entries) == 1
    assert not list_template((gone,), now=hour_of(last) + REFRESH).entries


@pytest.mark.requirement("SEC61")
@given(st.integers(min_value=0, max_value=3599))
def test_a_certificate_is_off_the_list_before_its_order_goes(seconds: int) -> None:
    revoked = transitions.revoked(certified(), "superseded", now=NOW)
    end = HOUR + timedelta(seconds=seconds)
    revoked = replace(revoked, status=replace(revoked.status, not_after=end))
    goes = kept_until(revoked)
    assert goes is not None
    assert not list_template((revoked_certificate(5, NOW, not_after=end),), now=goes).entries
    assert list_template((revoked_certificate(5, NOW, not_after=end),), now=end + REFRESH).entries


@pytest.mark.requirement("SEC79")
def test_a_certificate_that_order_and_record_name_is_listed_once_with_the_graver_reason() -> None:
    plain, raised = revoked_certificate(5, NOW), revoked_certificate(5, NOW, reason="keyCompromise")
    expected = list_template((raised,), now=NOW)
    for several in ((plain, raised), (raised, plain), (raised, raised, plain)):
        assert list_template(several, now=NOW) == expected


@pytest.mark.requirement("SEC79")
def test_the_date_of_a_list_is_not_before_that_of_the_last_one() -> None:
    last = NOW + timedelta(hours=5)
    template = list_template((), now=NOW, not_before=last)
    assert template.this_update == last
    assert template.next_update > last
    assert template.number > list_template((), now=NOW).number


def test_a_revocation_by_a_clock_that_is_ahead_does_not_date_the_list_into_the_future() -> None:
    template = list_template((revoked_certificate(5, NOW + timedelta(days=9)),), now=NOW)
    assert template.this_update == NOW


def test_times_of_other_zones_and_reasons_that_nobody_knows_do_not_keep_others_from_the_list() -> None:
    odd = revoked_certificate(5, NOW.astimezone(timezone(timedelta(hours=2))), reason="removeFromCRL")
    assert list_template((odd,), now=NOW).entries == [encode_entry(5, NOW, "unspecified")]
    assert list_template((odd,), now=NOW).this_update.tzinfo is UTC


@given(st.lists(st.tuples(SECONDS, st.booleans()), max_size=20), st.randoms(), SECONDS)
def test_replicas_make_the_same_list_and_its_number_only_rises(
    revocations: list[tuple[int, bool]], random: Any, until: int
) -> None:
    """Whatever order revocations are heard of in, and whenever lists are made meanwhile."""
    known = [
        revoked_certificate(serial, HOUR + timedelta(seconds=after), "keyCompromise" if compromised else "superseded")
        for serial, (after, compromised) in enumerate(revocations, start=1)
    ]
    random.shuffle(known)
    now = HOUR + timedelta(hours=3)
    numbers = [list_template(known[:count], now=now).number for count in range(len(known) + 1)]
    numbers.append(list_template(known, now=now + timedelta(seconds=until) + REFRESH).number)
    assert numbers == sorted(set(numbers))
    assert list_template(known, now=now) == list_template(known[::-1], now=now)
