from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from acme_server.model import ChallengeId, Profile, Valid
from acme_server.orders import lifetimes, transitions
from acme_server.problems import ProblemType, Refused
from tests.support.acmeorders import NOW, order
from tests.support.domain import running_world

HOUR = timedelta(hours=1)
DAY = 24 * HOUR


@pytest.fixture
async def profile() -> AsyncIterator[Profile]:
    async with running_world() as world:
        yield world.profile  # 720h, at most 2160h, orders live 24h


def dates(profile: Profile, before: datetime | None, after: datetime | None) -> tuple[datetime | None, datetime | None]:
    return lifetimes.requested_validity(before, after, profile, now=NOW)


@pytest.mark.requirement("M108", "C12")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, None),
        (None, 90 * DAY),
        (timedelta(0), None),
        (-timedelta(minutes=4), 30 * DAY),
        (HOUR, 90 * DAY),
        (None, 90 * DAY + timedelta(minutes=4)),
    ],
)
def test_dates_within_the_policy_are_honoured(
    profile: Profile, before: timedelta | None, after: timedelta | None
) -> None:
    wanted = (None if before is None else NOW + before, None if after is None else NOW + after)
    assert dates(profile, *wanted) == wanted


@pytest.mark.requirement("M108", "C12")
@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (-HOUR, None, "past"),
        (25 * HOUR, None, "24h"),
        (None, -HOUR, "notAfter"),
        (2 * HOUR, HOUR, "notAfter"),
        (None, timedelta(0), "notAfter"),
        (None, 91 * DAY, "policy pki/policy allows at most 2160h (spec.maximumDuration)"),
    ],
)
def test_odd_dates_are_refused_with_what_would_be_honoured(
    profile: Profile, before: timedelta | None, after: timedelta | None, why: str
) -> None:
    with pytest.raises(Refused) as caught:
        dates(profile, None if before is None else NOW + before, None if after is None else NOW + after)
    assert caught.value.type == ProblemType.MALFORMED
    assert why in caught.value.detail


def test_validity_is_counted_from_when_the_order_became_ready() -> None:
    fresh = order("a.example", "b.example")
    assert lifetimes.base_time(fresh, created=NOW, now=NOW) == NOW
    outcomes = {ChallengeId(0, "http-01"): Valid(NOW + HOUR), ChallengeId(1, "http-01"): Valid(NOW + 2 * HOUR)}
    ready = transitions.validated(fresh, outcomes, lifetime=DAY, now=NOW + 3 * HOUR)
    assert lifetimes.base_time(ready, created=NOW, now=NOW + 3 * HOUR) == NOW + 2 * HOUR
    accepted = transitions.accepted(ready, b"", "d", now=NOW + 4 * HOUR)
    assert lifetimes.base_time(accepted, created=NOW, now=NOW + 4 * HOUR) == NOW + 4 * HOUR


@pytest.mark.requirement("SEC34")
def test_times_that_have_not_come_count_for_nothing() -> None:
    """Somebody has changed the status: the certificate would begin in years."""
    later = NOW + 1000 * DAY
    ready = transitions.validated(order("a.example"), {ChallengeId(0, "http-01"): Valid(later)}, lifetime=DAY, now=NOW)
    assert lifetimes.base_time(ready, created=NOW - HOUR, now=NOW) == NOW - HOUR
    for accepted, base in ((later, NOW - HOUR), (NOW + lifetimes.SKEW, NOW + lifetimes.SKEW)):
        stored = replace(ready, status=replace(ready.status, accepted=accepted))
        assert lifetimes.base_time(stored, created=NOW - HOUR, now=NOW) == base


def test_a_base_time_is_fresh_for_a_twentieth_of_the_lifetime_and_five_minutes_at_most() -> None:
    assert lifetimes.is_fresh(NOW, 30 * DAY, now=NOW + timedelta(minutes=5))
    assert not lifetimes.is_fresh(NOW, 30 * DAY, now=NOW + timedelta(minutes=6))
    assert lifetimes.is_fresh(NOW, 20 * timedelta(minutes=1), now=NOW + timedelta(minutes=1))
    assert not lifetimes.is_fresh(NOW, 20 * timedelta(minutes=1), now=NOW + timedelta(minutes=2))


@pytest.mark.requirement("SEC67")
def test_only_a_valid_authorization_that_has_not_expired_is_usable() -> None:
    authorization = order().status.authorizations[0]
    assert not lifetimes.is_usable(authorization, now=NOW)
    valid = replace(authorization, state="valid")
    assert lifetimes.is_usable(valid, now=valid.expires + timedelta(minutes=4))
    assert not lifetimes.is_usable(valid, now=valid.expires + timedelta(minutes=6))
