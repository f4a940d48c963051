"""When things begin and end. Pure: the time is handed in."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from acme_server.problems import ProblemType, Refused
from acme_server.profiles import Profile
from kms.resources.durations import format_duration
from kms.resources.orders import ACMEOrder, Authorization, Authorized

SKEW = timedelta(minutes=5)
"""How far the clocks of server, API server and client may differ."""
BACKDATE = timedelta(seconds=60)
"""How long before it was asked for a certificate begins, for clients whose clocks are slow."""

_FRESH = timedelta(minutes=5)
_FRESH_SHARE = 20


def requested_validity(
    not_before: datetime | None, not_after: datetime | None, profile: Profile, *, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """The dates that a client asked for, if the profile's policy and its CA can honour them.

    In UTC and to the second, as certificates have them, so that order and certificate say the same. Raises Refused
    (malformed) that says what would be honoured: a certificate never has other dates than those that were asked for,
    so odd ones are refused before anybody solves a challenge.
    """
    not_before, not_after = _to_certificate_time(not_before), _to_certificate_time(not_after)
    longest = profile.policy.maximum_duration
    if not_before is not None and not_before < now - SKEW:
        raise _refusal("notBefore lies in the past")
    start = not_before or now
    if not_before is not None and not_before > now + profile.order_lifetime:
        raise _refusal(
            f"notBefore is more than {format_duration(profile.order_lifetime)} away, the lifetime of an order"
        )
    if not_after is None:
        return not_before, None
    if not_after <= start:
        raise _refusal("notAfter is not later than notBefore, or lies in the past")
    last = profile.authority.status.not_after
    if last is not None and not_after > last:
        raise _refusal(f"the CA's own certificate ends at {last:%Y-%m-%dT%H:%M:%SZ}")
    # What the client counts from its own clock may be a little longer than what we count from ours.
    if not_after - start > (longest + SKEW if not_before is None else longest):
        raise _refusal(f"policy {profile.policy.name} allows at most {format_duration(longest)} (spec.maximumDuration)")
    return not_before, not_after


def _to_certificate_time(moment: datetime | None) -> datetime | None:
    """The time as a certificate can have it (RFC 5280, 4.1.2.5). Raises Refused where that is no time in UTC."""
    try:
        return moment and moment.astimezone(UTC).replace(microsecond=0)
    except OverflowError:
        raise _refusal("a date is beyond the end of time") from None


def _refusal(why: str) -> Refused:
    return Refused(ProblemType.MALFORMED, f"The requested validity cannot be honoured: {why}.")


def order_expires(profile: Profile, authorized: Iterable[Authorized] = (), *, now: datetime) -> datetime:
    """Until when a new order can be finalized: not beyond the authorizations of earlier orders that it relies on."""
    return min((now + profile.order_lifetime, *(each.expires for each in authorized if each.order is not None)))


def authorization_expires(order: ACMEOrder, lifetime: timedelta, *, validated: datetime) -> datetime:
    """Until when a proof of control holds: at least as long as the order that it was made for."""
    return max(order.spec.expires, validated + lifetime)


def is_over(expires: datetime, *, now: datetime) -> bool:
    """Whether that time has passed for everybody, whatever their clocks say."""
    return now > expires + SKEW


def base_time(order: ACMEOrder, *, created: datetime) -> datetime:
    """The time that validity is counted from: the same on every replica and on every repetition.

    When the CSR was accepted, where that had to be written down; else when the order became ready. What was proven for
    an earlier order makes this one ready when it is created.
    """
    if order.status.accepted is not None:
        return order.status.accepted
    earlier = {each.authorization for each in order.spec.authorized if each.order is not None}
    times = [created] if earlier else []
    for position, authorization in enumerate(order.status.authorizations):
        if position not in earlier:
            times += [each.validated for each in authorization.challenges if each.validated is not None]
    return max(times, default=created)


def is_fresh(base: datetime, duration: timedelta, *, now: datetime) -> bool:
    """Whether a validity counted from `base` is close enough to one counted from now that nobody minds."""
    return now - base <= min(_FRESH, duration / _FRESH_SHARE)


def is_usable(authorization: Authorization, *, now: datetime) -> bool:
    """Whether the authorization allows issuing now."""
    return authorization.state == "valid" and not is_over(authorization.expires, now=now)
