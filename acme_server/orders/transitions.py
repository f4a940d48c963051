"""The state machine of orders, their authorizations and challenges (RFC 8555, 7.1.6).

Pure: an order and an event in, an order or a refusal out.

    challenge      pending -> processing -> valid | invalid
    authorization  pending -> valid | invalid | deactivated | expired;  valid -> deactivated | expired | revoked
    order          pending -> ready -> processing -> valid;  pending, ready, processing -> invalid

A transition is applied to the stored order, which may be newer than the version that its caller saw. So each transition
checks from which states it starts and returns every other order unchanged: a terminal state is never left, and a
repeated or late event has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from acme_server.model import ChallengeId, Failed, Outcome, Valid
from acme_server.orders.lifetimes import authorization_expires, is_over, is_usable
from acme_server.problems import NotFound, ProblemType, Refused
from kms.contract import DURATION_SHORTENED, READY
from kms.issuers import Issued
from kms.pki.crl import KEY_COMPROMISE
from kms.resources.certificate_chains import split_chain
from kms.resources.durations import format_duration
from kms.resources.meta import Condition, LocalRef, with_condition
from kms.resources.orders import OPEN_STATES as OPEN_STATES
from kms.resources.orders import (
    ACMEOrder,
    Authorization,
    AuthorizationState,
    Challenge,
    OrderStatus,
    Revocation,
    StoredProblem,
    StoredSubProblem,
    has_all_authorizations,
)

_Change = Callable[[int, Challenge], Challenge]

_MESSAGE_LENGTH = 1024
_DETAIL_LENGTH = 512
"""Characters of an error that an order stores: a name of 253 and what is wrong with it."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_SEVERAL = 2
_BROKEN: Mapping[AuthorizationState, str] = {
    "invalid": "Control could not be proven.",
    "deactivated": "The authorization was deactivated.",
    "expired": "The authorization has expired.",
    "revoked": "The authorization was revoked.",
}
"""States of an authorization that end its order, in words."""


def begun(
    order: ACMEOrder, running: Mapping[ChallengeId, StoredProblem | None], *, attempt: str, now: datetime
) -> ACMEOrder:
    """Record that `attempt` is validating these challenges, with the failures so far."""
    if not running:
        return order

    def challenge(position: int, each: Challenge) -> Challenge:
        id_ = ChallengeId(position, each.type)
        if id_ not in running or each.state not in {"pending", "processing"}:
            return each
        started = each.started if each.attempt == attempt else now
        return replace(each, state="processing", error=_brief(running[id_]), started=started, attempt=attempt)

    return _with_challenges(order, challenge)


def shown_as_running(order: ACMEOrder, running: Mapping[ChallengeId, StoredProblem | None]) -> ACMEOrder:
    """The order as a client sees it while these challenges are being validated. For answers, never for the store."""
    if not running:
        return order

    def challenge(position: int, each: Challenge) -> Challenge:
        id_ = ChallengeId(position, each.type)
        if id_ not in running or each.state not in {"pending", "processing"}:
            return each
        return replace(each, state="processing", error=running[id_] or each.error)

    return _with_challenges(order, challenge)


def validated(
    order: ACMEOrder, outcomes: Mapping[ChallengeId, Outcome], *, lifetime: timedelta, now: datetime
) -> ACMEOrder:
    """Apply the outcomes of finished validations; one failure makes the order invalid.

    Finished challenges do not change, so a late or repeated outcome has no effect. `lifetime` is how long a proof
    holds at least.
    """
    if order.status.state != "pending":
        return order

    def settled(position: int, authorization: Authorization) -> Authorization:
        if authorization.state != "pending":
            return authorization
        challenges = tuple(
            _settled(each, outcomes.get(ChallengeId(position, each.type))) for each in authorization.challenges
        )
        authorization = replace(authorization, challenges=challenges)
        proof = next((each for each in challenges if each.state == "valid"), None)
        if proof is not None and proof.validated is not None:
            expires = authorization_expires(order, lifetime, validated=proof.validated)
            return replace(_tried(authorization), state="valid", expires=expires)
        if any(each.state == "invalid" for each in challenges):
            return replace(_tried(authorization), state="invalid")
        return authorization

    authorizations = tuple(settled(*each) for each in enumerate(order.status.authorizations))
    return _derived(order, authorizations, now=now)


def _tried(authorization: Authorization) -> Authorization:
    """The authorization without the challenges that were not tried: an order that has ended does not store them."""
    tried = tuple(each for each in authorization.challenges if each.state != "pending")
    return authorization if tried == authorization.challenges else replace(authorization, challenges=tried)


def _settled(challenge: Challenge, outcome: Outcome | None) -> Challenge:
    if outcome is None or challenge.state not in {"pending", "processing"}:
        return challenge
    match outcome:
        case Valid(at, caa):
            proven = replace(challenge, state="valid", validated=at, caa_checked_at=caa)
            return replace(proven, error=None, started=None, attempt=None)
        case Failed(problem):
            return replace(challenge, state="invalid", error=_brief(problem), started=None, attempt=None)


def _brief(problem: StoredProblem | None) -> StoredProblem | None:
    """The problem as orders store it: without those of earlier attempts, and of limited length."""
    return problem and StoredProblem(type=problem.type, detail=problem.detail[:_DETAIL_LENGTH])


def deactivated(order: ACMEOrder, position: int, *, now: datetime) -> ACMEOrder:
    """Give up the authorization at `position` (RFC 8555, 7.5.2); an order that needs it becomes invalid."""

    def changed(index: int, authorization: Authorization) -> Authorization:
        if index != position or authorization.state not in {"pending", "valid"}:
            return authorization
        return replace(authorization, state="deactivated")

    authorizations = tuple(changed(*each) for each in enumerate(order.status.authorizations))
    return _derived(order, authorizations, now=now)


def relinquished(order: ACMEOrder, lost: Mapping[int, AuthorizationState], *, now: datetime) -> ACMEOrder:
    """End an open order that relies on authorizations of earlier orders which hold no longer.

    `lost` says what became of them, by their position in this order.
    """
    if order.status.state not in OPEN_STATES:
        return order
    authorizations = tuple(
        replace(each, state=lost[position]) if position in lost and each.state == "valid" else each
        for position, each in enumerate(order.status.authorizations)
    )
    return _derived(order, authorizations, now=now)


def expired(order: ACMEOrder, *, now: datetime) -> ACMEOrder:
    """End an order that was not finalized in time, and one whose proofs hold no longer.

    A CSR that was accepted in time is no longer bound to the time: processing orders stay. A
    pre-authorization is valid until its own expiry.
    """
    if order.status.state not in {"pending", "ready"}:
        return order
    authorizations = [
        replace(each, state="expired")
        if each.state in {"pending", "valid"} and is_over(each.expires, now=now)
        else each
        for each in order.status.authorizations
    ]
    order = _derived(order, tuple(authorizations), now=now)
    proven_before = order.spec.preauthorization and order.status.state == "ready"
    if order.status.state in OPEN_STATES and not proven_before and is_over(order.spec.expires, now=now):
        late = StoredProblem(type=ProblemType.UNAUTHORIZED.value, detail="The order was not finalized in time.")
        return failed(order, late, reason="Expired", now=now)
    return order


def _derived(order: ACMEOrder, authorizations: tuple[Authorization, ...], *, now: datetime) -> ACMEOrder:
    """The order with these authorizations, in the state that follows: a lost one ends it, also in processing."""
    changed, state = order, order.status.state
    if authorizations != order.status.authorizations:
        changed = _changed(order, authorizations=authorizations)
    states = {each.state for each in authorizations}
    if state in OPEN_STATES and not states.isdisjoint(_BROKEN):
        broken = [each for each in authorizations if each.state in _BROKEN]
        return failed(changed, _reason(broken), reason="AuthorizationFailed", now=now)
    if state == "pending" and states == {"valid"}:
        return _changed(changed, state="ready")
    return changed


def _reason(broken: list[Authorization]) -> StoredProblem:
    """Why the order failed: the first error. The others stay with their challenges (`subproblems_of`)."""
    first = _problem_of(broken[0])
    several = f"{len(broken)} authorizations failed. " if len(broken) > 1 else ""
    return StoredProblem(type=first.type, detail=f"{several}{broken[0].identifier.value}: {first.detail}")


def subproblems_of(order: ACMEOrder) -> tuple[StoredSubProblem, ...]:
    """The errors of the identifiers that made the order invalid, if there are several (RFC 8555, 6.7.1)."""
    broken = [each for each in order.status.authorizations if each.state in _BROKEN]
    if order.status.state != "invalid" or len(broken) < _SEVERAL:
        return ()
    return tuple(
        StoredSubProblem(type=problem.type, detail=problem.detail, identifier=each.identifier)
        for each, problem in zip(broken, map(_problem_of, broken), strict=True)
    )


def _problem_of(authorization: Authorization) -> StoredProblem:
    errors = (each.error for each in authorization.challenges if each.state == "invalid" and each.error is not None)
    fallback = StoredProblem(type=ProblemType.UNAUTHORIZED.value, detail=_BROKEN[authorization.state])
    return next(errors, fallback) if authorization.state == "invalid" else fallback


def is_replay(order: ACMEOrder, digest: str) -> bool:
    """Whether this CSR has been accepted already."""
    return order.status.state in {"processing", "valid"} and order.status.csr_digest == digest


def require_ready(order: ACMEOrder, *, now: datetime) -> None:
    """Raise Refused (orderNotReady) unless a CSR may be accepted now."""
    if order.status.state != "ready":
        why = order.status.error.detail if order.status.error else "only an order that is ready can be finalized."
        raise Refused(ProblemType.ORDER_NOT_READY, f"The order is {order.status.state}: {why}")
    if is_over(order.spec.expires, now=now):
        raise Refused(ProblemType.ORDER_NOT_READY, "The order has expired.")
    require_unchanged(order)
    if not has_all_authorizations(order):
        raise Refused(ProblemType.ORDER_NOT_READY, "The order is damaged: its authorizations do not fit its names.")
    for each in order.status.authorizations:
        if not is_usable(each, now=now):
            raise Refused(
                ProblemType.ORDER_NOT_READY, f"The authorization for {each.identifier.value} is not valid any more."
            )


def require_unchanged(order: ACMEOrder) -> None:
    """Raise Refused (orderNotReady) if the proofs may be for what another spec said."""
    if order.was_changed:
        raise Refused(ProblemType.ORDER_NOT_READY, "The order is damaged: its spec was changed after it was created.")


def require_finalizable(order: ACMEOrder, digest: str, *, now: datetime) -> ACMEOrder:
    """The order, if the CSR may be accepted or was accepted already. Raises Refused (orderNotReady)."""
    if not is_replay(order, digest):
        require_ready(order, now=now)
    return order


def accepted(order: ACMEOrder, request: bytes, digest: str, *, now: datetime) -> ACMEOrder:
    """Take the CSR (ready to processing), with the time that validity will be counted from.

    Raises Refused (orderNotReady) if the order has moved on with another CSR, or cannot be finalized.
    """
    if is_replay(order, digest):
        return order
    require_ready(order, now=now)
    return _changed(order, state="processing", request=request, csr_digest=digest, accepted=now)


def issued(
    order: ACMEOrder,
    digest: str,
    certificate: Issued,
    *,
    chain_ref: LocalRef | None = None,
    left_out: Sequence[str] = (),
    shortened_from: timedelta | None = None,
    now: datetime,
) -> ACMEOrder:
    """Keep the certificate (ready or processing to valid), and what was `left_out` of it.

    `shortened_from` is the duration that it should have had. With `chain_ref` the order has the certificate alone, and
    refers to those above it.

    An order that already has one keeps it: that is the one which is handed out. Raises Refused (orderNotReady)
    where the order has moved on with another CSR, or must not be issued any more.
    """
    if order.status.state == "valid" and order.status.csr_digest == digest:
        return order
    if not (order.status.state == "processing" and order.status.csr_digest == digest):
        require_ready(order, now=now)
    require_unchanged(order)
    ready = Condition(
        type=READY,
        status="True",
        reason="Issued",
        message=f"The certificate was issued; it is valid until {certificate.not_after:{_TIME}}.{_but_not(left_out)}",
        last_transition_time=now,
    )
    return _changed(
        order,
        state="valid",
        csr_digest=digest,
        request=None,
        accepted=None,
        issuance=None,
        certificate=split_chain(certificate.chain)[0] if chain_ref is not None else certificate.chain,
        chain_ref=chain_ref,
        serial_number=certificate.serial_number,
        authority_key_id=certificate.authority_key_id or None,
        public_key_digest=certificate.public_key_digest,
        issued_at=now,
        not_before=certificate.not_before,
        not_after=certificate.not_after,
        left_out=tuple(left_out),
        conditions=_shortened(with_condition(order.status.conditions, ready), certificate, shortened_from, now=now),
    )


def _but_not(left_out: Sequence[str]) -> str:
    return " Not all that the request asked for was certified; status.leftOut has the rest." if left_out else ""


def _shortened(
    conditions: tuple[Condition, ...], certificate: Issued, duration: timedelta | None, *, now: datetime
) -> tuple[Condition, ...]:
    """The conditions, with DurationShortened if the certificate should have lasted for `duration`."""
    if duration is None:
        return conditions
    shortened = Condition(
        type=DURATION_SHORTENED,
        status="True",
        reason="CertificateAuthorityEnds",
        message=(
            f"The certificate ends at {certificate.not_after:%Y-%m-%dT%H:%M:%SZ} with its CA, before the duration of"
            f" {format_duration(duration)} is over."
        ),
        last_transition_time=now,
    )
    return with_condition(conditions, shortened)


def failed(order: ACMEOrder, problem: StoredProblem, *, reason: str, now: datetime) -> ACMEOrder:
    """End an open order with the problem and a CamelCase reason; an order that has ended does not change."""
    if order.status.state not in OPEN_STATES:
        return order
    not_ready = Condition(
        type=READY,
        status="False",
        reason=reason,
        message=problem.detail[:_MESSAGE_LENGTH],
        last_transition_time=now,
    )
    return _changed(
        order,
        state="invalid",
        authorizations=tuple(_ended(each) for each in order.status.authorizations),
        error=_brief(problem),
        request=None,
        accepted=None,
        issuance=None,
        conditions=with_condition(order.status.conditions, not_ready),
    )


def _ended(authorization: Authorization) -> Authorization:
    """The authorization as an order stores it that has ended: nothing is validated for it any more."""
    if not any(each.state == "processing" for each in authorization.challenges):
        return _tried(authorization)
    stopped = (
        replace(each, state="pending", error=None, started=None, attempt=None) if each.state == "processing" else each
        for each in authorization.challenges
    )
    return _tried(replace(authorization, challenges=tuple(stopped)))


def revoked(
    order: ACMEOrder, reason: str, *, by_key: bool = False, requested: bool = False, now: datetime
) -> ACMEOrder:
    """Record that the certificate of the order was revoked; the order stays valid.

    `requested`: the CA is external, and has not revoked it yet.

    Raises Refused (alreadyRevoked) for a revoked certificate, so only one of several racing requests succeeds. But
    a sender who proves a compromise with the certificate's own key (`by_key`) changes an earlier reason to it.
    Raises NotFound if there is no certificate.
    """
    if order.status.certificate is None:
        raise NotFound
    revocation = Revocation(time=now, reason=reason)
    if (before := order.status.revocation) is not None:
        if not (by_key and reason == KEY_COMPROMISE) or before.reason == KEY_COMPROMISE:
            raise Refused(ProblemType.ALREADY_REVOKED, "The certificate is revoked already.")
        revocation = replace(before, reason=reason)
    return _with_revocation(order, revocation, requested=requested and revocation.propagated is None, now=now)


def propagated(order: ACMEOrder, *, now: datetime) -> ACMEOrder:
    """Record that the CA has confirmed the revocation. Again changes nothing."""
    revocation = order.status.revocation
    if revocation is None or revocation.propagated is not None:
        return order
    return _with_revocation(order, replace(revocation, propagated=now), requested=False, now=now)


def _with_revocation(order: ACMEOrder, revocation: Revocation, *, requested: bool, now: datetime) -> ACMEOrder:
    what = "Revocation was requested" if requested else "The certificate was revoked"
    message = f"{what} at {revocation.time:{_TIME}}, with the reason {revocation.reason}."
    not_ready = Condition(
        type=READY,
        status="False",
        reason="RevocationRequested" if requested else "Revoked",
        message=f"{message} The issuing CA has not confirmed it." if requested else message,
        last_transition_time=now,
    )
    return _changed(order, revocation=revocation, conditions=with_condition(order.status.conditions, not_ready))


def _with_challenges(order: ACMEOrder, challenge: _Change) -> ACMEOrder:
    if order.status.state != "pending":
        return order
    authorizations = tuple(
        replace(authorization, challenges=tuple(challenge(position, each) for each in authorization.challenges))
        if authorization.state == "pending"
        else authorization
        for position, authorization in enumerate(order.status.authorizations)
    )
    return _changed(order, authorizations=authorizations)


def _changed(order: ACMEOrder, **changes: object) -> ACMEOrder:
    status: OrderStatus = replace(order.status, **changes)
    return replace(order, status=status)
