"""The lifetimes of orders, authorizations and certificates. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from acme_server.model import Profile
from acme_server.problems import ProblemType, Refused, Unavailable
from kms.clock import later
from kms.contract import minimum_rest
from kms.issuers import Issued
from kms.resources.durations import format_duration
from kms.resources.orders import ACMEOrder, Authorization, Authorized

SKEW = timedelta(minutes=5)
"""How far the clocks of server, API server and client may differ."""
BACKDATE = timedelta(seconds=60)
"""How long before the request the validity of a certificate begins, for clients whose clocks are slow."""

_RENEWAL = 60
"""Retry-After while a CA is about to end, in seconds."""
_FRESH = timedelta(minutes=5)
_FRESH_SHARE = 20


def requested_validity(
    not_before: datetime | None, not_after: datetime | None, profile: Profile, *, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """The dates that the client requested, if policy and CA allow them.

    In UTC and to the second, as in certificates. Raises Refused (malformed) with the limit that was exceeded: a
    certificate never has other dates than the requested ones, so a client learns this before it solves challenges.
    """
    not_before, not_after = _to_certificate_time(not_before), _to_certificate_time(not_after)
    longest = profile.policy.maximum_duration
    if not_before is not None and not_before < now - SKEW:
        raise _refusal("notBefore lies in the past")
    _require_honourable(not_before, not_after, profile, now=now)
    start = not_before or now
    if not_before is not None and not_before > now + profile.order_lifetime:
        raise _refusal(
            f"notBefore is more than {format_duration(profile.order_lifetime)} away, the lifetime of an order"
        )
    if not_after is None:
        return not_before, None
    if not_after <= start:
        raise _refusal("notAfter is not later than notBefore, or lies in the past")
    last = profile.authority_end
    if last is not None and not_after > last:
        is_own = last == profile.authority.status.not_after
        which = "the CA's own certificate" if is_own else "a certificate above the CA"
        raise _refusal(f"{which} ends at {last:%Y-%m-%dT%H:%M:%SZ}")
    # The client may count from a clock that differs from ours.
    if not_after - start > (longest + SKEW if not_before is None else longest):
        raise _refusal(f"policy {profile.policy.name} allows at most {format_duration(longest)} (spec.maximumDuration)")
    return not_before, not_after


def _require_honourable(
    not_before: datetime | None, not_after: datetime | None, profile: Profile, *, now: datetime
) -> None:
    """Raise Refused (malformed) for dates that an external CA cannot be asked for."""
    external = profile.authority.spec.external
    if external is None:
        return
    if not_before is not None and not_before > now + SKEW:
        raise _refusal("the issuing CA begins every certificate at once, so leave out notBefore")
    if not_after is not None and external.vault is None:
        raise _refusal("the issuing CA decides when a certificate ends, so leave out notAfter")


def _to_certificate_time(moment: datetime | None) -> datetime | None:
    """The time in the precision of certificates (RFC 5280, 4.1.2.5). Raises Refused beyond the year 9999."""
    try:
        return moment and moment.astimezone(UTC).replace(microsecond=0)
    except OverflowError:
        raise _refusal("a date is beyond the end of time") from None


def _refusal(why: str) -> Refused:
    return Refused(ProblemType.MALFORMED, f"The requested validity cannot be honoured: {why}.")


def require_plausible_start(order: ACMEOrder, profile: Profile, *, created: datetime) -> None:
    """Raise Refused (malformed) for a notBefore that `requested_validity` had not admitted when the order was created.

    `created` is by the clock of the API server. All other dates are checked when the certificate is made.
    """
    not_before = order.spec.not_before
    if not_before is None:
        return
    if not_before < created - SKEW - SKEW:  # of the client's clock, and of the API server's
        raise _refusal("notBefore lies before the creation of the order")
    if not_before > created + profile.order_lifetime + SKEW:
        raise _refusal("notBefore lies after the end of the order")


def order_expires(profile: Profile, authorized: Iterable[Authorized] = (), *, now: datetime) -> datetime:
    """When a new order expires: not later than the authorizations that it reuses."""
    return min((now + profile.order_lifetime, *(each.expires for each in authorized if each.order is not None)))


def authorization_expires(order: ACMEOrder, lifetime: timedelta, *, validated: datetime) -> datetime:
    """When an authorization expires: not before the order that it was made for."""
    return max(order.spec.expires, later(validated, lifetime))


def proof_ends(original: ACMEOrder, expires: datetime, *, validated: datetime, profile: Profile) -> datetime:
    """When an authorization ends that later orders reuse: when it expires, and never later than the profile allows.

    It is good until the end of the order that it was made for, and for the profile's authorizationLifetime. `expires`
    follows from the spec of that order, in which the end may be any.
    """
    created = original.metadata.creation_timestamp or validated
    return min(expires, max(created + profile.order_lifetime, later(validated, profile.authorization_lifetime)))


def is_over(expires: datetime, *, now: datetime) -> bool:
    """Whether that time has passed, even by a clock that is slow by SKEW."""
    return now - SKEW > expires  # not `expires + SKEW`, which may be beyond the end of time


def accepted_at(order: ACMEOrder, *, now: datetime) -> datetime | None:
    """When the CSR was accepted; None if it was not, or at a time that has not come.

    No server has written such a time: clocks do not differ by more than SKEW.
    """
    accepted = order.status.accepted
    return accepted if accepted is not None and accepted - SKEW <= now else None


def base_time(order: ACMEOrder, *, created: datetime, now: datetime) -> datetime:
    """The time from which validity is counted, the same on every replica and at every repetition.

    It is when the CSR was accepted, if that was stored; else when the order became ready. Names that need no proof, or
    were proven before, are ready when the order is created. Times that have not come count for nothing.
    """
    if (accepted := accepted_at(order, now=now)) is not None:
        return accepted
    # What the spec says of the time of a proof counts for nothing: others than newOrder may have written it.
    before = {each.authorization for each in order.spec.authorized}
    times = [created] if before else []
    for position, authorization in enumerate(order.status.authorizations):
        if position not in before:
            proven = [each.validated for each in authorization.challenges if each.validated is not None]
            times += [each for each in proven if each - SKEW <= now]
    return max(times, default=created)


def is_fresh(base: datetime, duration: timedelta, *, now: datetime) -> bool:
    """Whether validity may be counted from `base`: the certificate loses only a little of its lifetime."""
    return now - base <= min(_FRESH, duration / _FRESH_SHARE)


def shortened_from(order: ACMEOrder, certificate: Issued, duration: timedelta) -> timedelta | None:
    """The duration that the certificate lacks a part of, because its CA ends before; None if it has all of it."""
    lasts = certificate.not_after - certificate.not_before
    is_shortened = order.spec.not_after is None and lasts < duration - timedelta(seconds=1)
    return duration if is_shortened else None


def require_rest(not_after: datetime | None, profile: Profile, *, now: datetime) -> None:
    """Raise Unavailable if the CA, or one above it, ends too soon for a certificate without a requested end.

    It may be renewed.
    """
    last = profile.authority_end
    if not_after is None and last is not None and last - now < minimum_rest(profile.duration):
        raise Unavailable("The certificate of the issuing CA, or of one above it, ends too soon.", _RENEWAL)


def is_usable(authorization: Authorization, *, now: datetime) -> bool:
    """Whether the authorization allows issuing now."""
    return authorization.state == "valid" and not is_over(authorization.expires, now=now)
