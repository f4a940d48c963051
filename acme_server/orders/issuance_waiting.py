"""Orders that wait for a CA which takes time: what its answers mean, and the transitions that follow.

Pure, as orders/transitions.py, which has the rest of the state machine:

    ready -> processing (begun);  processing -> processing (waiting, again);  processing -> invalid (given_up)

Replicas that work at the same order see the same `Issuance`. Each transition applies to the one that its caller saw,
and returns an order that has moved on unchanged.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.problems import ProblemType
from kms.contract import READY
from kms.issuers.protocol import Denied, Failed, Pending, Refused, Unavailable, WaitingReason, request_name
from kms.pki.returned import Rejected
from kms.resources.durations import format_duration
from kms.resources.meta import Condition, with_condition
from kms.resources.orders import ACMEOrder, AskedAuthority, Claim, Issuance, OrderStatus, StoredProblem

_WORDS: Final = 256
"""Characters of a CA's own words in a condition."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When another attempt may begin.

    After a failure it is after each of `after_failures` in turn, and then not at all. While the CA cannot be asked, it
    is from `shortest` on, each time twice as late, up to `longest`.
    """

    after_failures: Sequence[timedelta] = (timedelta(seconds=10), timedelta(seconds=60))
    shortest: timedelta = timedelta(seconds=5)
    longest: timedelta = timedelta(seconds=60)

    def after_failure(self, attempt: int) -> timedelta | None:
        """How long after the failure of this attempt the next one begins; None: there is no other."""
        return self.after_failures[attempt - 1] if attempt <= len(self.after_failures) else None

    def while_unavailable(self, attempt: int) -> timedelta:
        """How long after this attempt the next one begins."""
        doublings = min(attempt - 1, 32)  # beyond that every delay is the longest
        return min(self.shortest * (1 << doublings), self.longest)


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again later."""

    reason: WaitingReason
    message: str


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Begin another attempt at `not_before`. Its certificate must end by `not_after`, if that is set."""

    not_before: datetime
    message: str
    not_after: datetime | None = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the order. The problem is for the client; the message, with the CA's words, for administrators."""

    type: ProblemType
    detail: str
    reason: Literal["Denied", "RefusedByIssuer", "IssuerFailed", "IssuerTimeout", "CertificateRejected"]
    message: str


Step: TypeAlias = Wait | TryAgain | GiveUp
Obstacle: TypeAlias = Pending | Denied | Refused | Failed | Unavailable | Rejected
"""An answer other than a certificate that may be stored."""

_DENIED: Final = "An administrator's policy denied the request."
_REFUSED: Final = "The issuing CA refused the certificate request."
_REJECTED: Final = "The issuing CA returned a certificate that does not fit the order."
_FAILED: Final = "The issuing CA could not issue the certificate."


def next_step(
    issuance: Issuance,
    obstacle: Obstacle,
    *,
    accepted: datetime,
    timeout: timedelta,
    now: datetime,
    schedule: Schedule = Schedule(),
) -> Step:
    """What the answer to an attempt means for the order, whose time is over `timeout` after `accepted`.

    Problems never have text of the CA (its words may say what a client must not know), and a client gets a problem only
    for what does not pass by itself.
    """
    deadline = accepted + timeout
    match obstacle:
        case Denied(message):
            step: Step = GiveUp(ProblemType.UNAUTHORIZED, _DENIED, "Denied", message)
        case Refused(message):
            step = GiveUp(ProblemType.BAD_CSR, _REFUSED, "RefusedByIssuer", message)
        case Rejected():
            step = _after_rejection(issuance, obstacle, now=now)
        case Failed(message, is_final):
            delay = None if is_final else schedule.after_failure(issuance.attempt)
            if delay is None or now + delay >= deadline:
                step = GiveUp(ProblemType.SERVER_INTERNAL, _FAILED, "IssuerFailed", message)
            else:
                step = TryAgain(now + delay, message, issuance.not_after)
        case Pending(reason, message) if now < deadline:
            step = Wait(reason, message)
        case Unavailable(message) if now < deadline:
            begins = min(now + schedule.while_unavailable(issuance.attempt), deadline)
            step = TryAgain(begins, message, issuance.not_after)
        case Pending(_, message) | Unavailable(message):
            detail = f"The issuing CA did not answer within {format_duration(timeout)}."
            step = GiveUp(ProblemType.SERVER_INTERNAL, detail, "IssuerTimeout", message)
    return step


def _after_rejection(issuance: Issuance, rejected: Rejected, *, now: datetime) -> Step:
    """A certificate that outlives its CA gets one more attempt; the order remembers by its `not_after`."""
    if rejected.ends is not None and rejected.ends > now and issuance.not_after is None:
        return TryAgain(now, str(rejected), rejected.ends)
    message = f"{rejected.rule}: {rejected}"
    return GiveUp(ProblemType.SERVER_INTERNAL, _REJECTED, "CertificateRejected", message)


def retry_after(waited: timedelta) -> int:
    """Seconds until a client should ask again about an order that has been processing for this long."""
    if waited < timedelta(seconds=10):
        return 1
    return 5 if waited < timedelta(minutes=1) else 30


def asked_duration(
    duration: timedelta,
    *,
    maximum: timedelta,
    ends: Sequence[datetime | None],
    now: datetime,
) -> timedelta:
    """The duration to ask a CA for, in whole seconds: that of the profile, not more than the policy's `maximum`.

    The certificate must not outlast any of the `ends` that are known: of the CA, and what the client or an earlier
    attempt requires. It is zero or less if one of them has passed.
    """
    found = min((duration, maximum, *(each - now for each in ends if each is not None)))
    return timedelta(seconds=found // timedelta(seconds=1))


def begun(
    order: ACMEOrder,
    request: bytes,
    digest: str,
    *,
    authority: AskedAuthority,
    claim: Claim | None = None,
    now: datetime,
) -> ACMEOrder:
    """Take the CSR for this CA (ready to processing), before anything is sent to it.

    `claim` says which process asks, for CAs whose requests have no name. The same CSR again changes nothing. Raises
    Refused (orderNotReady) if the order has moved on with another CSR, or cannot be finalized.
    """
    if transitions.is_replay(order, digest):
        return order
    order = transitions.accepted(order, request, digest, now=now)
    return _with(order, authority=authority, issuance=_issuance(order, 1, claim=claim))


def waiting(order: ACMEOrder, seen: Issuance, step: Wait, *, now: datetime) -> ACMEOrder:
    """Tell people what the order waits for. The same reason and message again change nothing."""
    return _told(order, step.reason, step.message, now=now) if _is_at(order, seen) else order


def again(order: ACMEOrder, seen: Issuance, step: TryAgain, *, claim: Claim | None = None, now: datetime) -> ACMEOrder:
    """Begin the next attempt: of several replicas that do, one succeeds."""
    if not _is_at(order, seen):
        return order
    issuance = _issuance(order, seen.attempt + 1, claim=claim)
    issuance = replace(issuance, not_before=step.not_before, not_after=step.not_after)
    return _told(_with(order, issuance=issuance), "Retrying", step.message, now=now)


def given_up(order: ACMEOrder, seen: Issuance, step: GiveUp, *, now: datetime) -> ACMEOrder:
    """End the order (processing to invalid)."""
    if not _is_at(order, seen):
        return order
    problem = StoredProblem(type=step.type.value, detail=step.detail)
    return _told(transitions.failed(order, problem, reason=step.reason, now=now), step.reason, step.message, now=now)


def _issuance(order: ACMEOrder, attempt: int, *, claim: Claim | None) -> Issuance:
    name = request_name(uid=order.metadata.uid, digest=order.status.csr_digest or "", attempt=attempt)
    return Issuance(attempt=attempt, request=name, claim=claim)


def _is_at(order: ACMEOrder, seen: Issuance) -> bool:
    return order.status.state == "processing" and order.status.issuance == seen


def _told(order: ACMEOrder, reason: str, message: str, *, now: datetime) -> ACMEOrder:
    condition = Condition(type=READY, status="False", reason=reason, message=_plain(message), last_transition_time=now)
    return _with(order, conditions=with_condition(order.status.conditions, condition))


def _plain(message: str) -> str:
    """The words of a CA on one line, without control characters."""
    words = " ".join(message.split())
    return "".join(each for each in words if not unicodedata.category(each).startswith("C"))[:_WORDS]


def _with(order: ACMEOrder, **changes: object) -> ACMEOrder:
    status: OrderStatus = replace(order.status, **changes)
    return replace(order, status=status)
