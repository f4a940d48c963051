"""Certificates from external CAs: asking, waiting, checking, storing.

The order is stored as processing before anything is sent, so any replica can go on from there. What comes back is
checked, and stored before it is handed out. The rules for what an answer means are in `issuance_waiting`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from cryptography import x509

from acme_server.metrics import Metrics
from acme_server.model import Profile
from acme_server.orders import issuance_waiting, policy, transitions
from acme_server.orders.certificate_storage import CertificateStorage
from acme_server.orders.claims import CLAIMED, claim_of, has_claim, is_from_before, remaining_claim
from acme_server.orders.issuance_admission import IssuanceAdmission
from acme_server.orders.issuance_waiting import GiveUp, Obstacle, Schedule, TryAgain, Wait, next_step
from acme_server.orders.issuing_chains import IssuingChains
from acme_server.orders.lifetimes import accepted_at
from acme_server.orders.release import Attempt, Release, seconds_since_accepted
from acme_server.orders.submission import since, submission_of, timeout_of
from acme_server.orders.turns import Turns
from acme_server.orders.waiting import Waiter, Waiting
from acme_server.problems import NotFound, Refused, Unavailable
from acme_server.profiles import Profiles
from acme_server.state.store import Store, Vanished
from acme_server.tasks import in_thread_if_large
from kms.clock import Clock
from kms.issuers import IssuerNotReady
from kms.issuers.protocol import Failed, Pending, Returned
from kms.issuers.protocol import Unavailable as CAUnavailable
from kms.issuers.remote import RemoteIssuers, authority_type
from kms.pki.csr import CertificateRequest
from kms.pki.returned import Rejected
from kms.resources.authorities import CertificateAuthority
from kms.resources.meta import Key, key_of
from kms.resources.orders import ACMEOrder, AskedAuthority, AuthorityType, Issuance, StoredProblem

logger = logging.getLogger(__name__)

_RESULTS: Final = {
    "Denied": "denied",
    "RefusedByIssuer": "refused",
    "IssuerFailed": "failed",
    "IssuerTimeout": "timeout",
    "CertificateRejected": "rejected",
}


@dataclass(frozen=True, kw_only=True)
class Pace:
    """In seconds: how long finalize waits for the CA; the pauses between two looks, the longer one after a minute.

    An order in processing is left alone by other replicas for `patience`, and a claim for `claimed`: a call of the CA
    takes half a minute at most.
    """

    inline: float = 5.0
    look: float = 5.0
    later: float = 30.0
    patience: float = 30.0
    claimed: float = 60.0


class ExternalIssuance:
    """Asks external CAs for the certificates of orders. `process` identifies this process, `replica` its place.

    `find_authority` returns a CertificateAuthority by namespace and name.
    """

    def __init__(
        self,
        *,
        orders: Store[ACMEOrder],
        profiles: Profiles,
        storage: CertificateStorage,
        admission: IssuanceAdmission,
        issuers: RemoteIssuers,
        chains: IssuingChains,
        find_authority: Callable[[str, str], CertificateAuthority | None],
        process: str,
        clock: Clock,
        metrics: Metrics,
        pace: Pace | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        self._orders = orders
        self._profiles = profiles
        self._issuers = issuers
        self._find_authority = find_authority
        self._process = process
        self._clock = clock
        self._metrics = metrics
        self._pace = pace or Pace()
        self._schedule = schedule or Schedule()
        self._waiting = Waiting(self._step, retry=self._pace.look)
        self._turns = Turns()
        self._chains = chains
        self._release = Release(
            orders=orders, storage=storage, admission=admission, chains=chains, clock=clock, metrics=metrics
        )

    def count(self, type_: AuthorityType) -> int:
        """The number of orders that wait for a CA of that type on this replica."""
        return self._waiting.count(type_)

    def find_issuing(self, authority: CertificateAuthority) -> x509.Certificate | None:
        """The certificate with which the CA issues, if that is known."""
        return self._release.find_issuing(authority)

    async def recall(self, authority: CertificateAuthority) -> None:
        """Learn with which certificate the CA issues from what it has issued, before this server began."""
        await self._chains.recall(authority)

    async def begin(self, profile: Profile, order: ACMEOrder, request: CertificateRequest) -> ACMEOrder:
        """Take the CSR and begin to ask the CA of the profile. One write comes before anything is sent.

        The request has passed `require_verbatim`. Raises Refused (orderNotReady) and Unavailable.
        """
        type_ = authority_type(profile.authority)
        if type_ is None:
            raise ValueError("the profile has no external CA")
        now = self._clock()
        order = await self._orders.change(
            order,
            partial(
                issuance_waiting.begun,
                request=request.der,
                digest=request.digest,
                authority=AskedAuthority(name=profile.authority.metadata.name, type=type_),
                claim=claim_of(self._process, type_, now=now),
                now=now,
            ),
        )
        if order.status.issuance is not None:
            self._waiting.start(key_of(order), type_)
        return order

    async def wait(self, order: ACMEOrder) -> ACMEOrder:
        """The order once the CA has answered, or after some seconds as it is. Raises Unavailable."""
        if order.status.state != "processing" or order.status.issuance is None:
            return order
        await self._waiting.settle(key_of(order), seconds=self._pace.inline)
        return await self._orders.get(*key_of(order)) or order

    def is_working_at(self, key: Key) -> bool:
        """Whether this replica works at the order."""
        return key in self._waiting

    def resume(self, order: ACMEOrder) -> None:
        """Go on with an order if no other replica seems to work at it."""
        status = order.status
        if status.state != "processing" or status.issuance is None or status.authority is None:
            return
        now = self._clock()
        began = max(filter(None, (accepted_at(order, now=now), status.issuance.not_before)), default=None)
        patience = timedelta(seconds=self._pace.patience)
        is_old = began is None or now - began >= patience
        if is_old or is_from_before(self._process, status.issuance):
            self._waiting.start(key_of(order), status.authority.type)

    def wake(self, request: str) -> None:
        """Look at the order whose request this is: the request has changed."""
        self._waiting.wake(request)

    async def drain(self, seconds: float) -> None:
        """Stop; what is under way gets that long to end."""
        await self._waiting.drain(seconds)

    async def _step(self, waiter: Waiter) -> float | None:
        order = await self._orders.get(*waiter.key)
        if order is None or order.status.state != "processing" or order.status.issuance is None:
            await self._end(waiter)
            return None
        try:
            return await self._advance_or_end(waiter, order, order.status.issuance)
        except Vanished:
            await self._end(waiter)
            return None

    async def _advance_or_end(self, waiter: Waiter, order: ACMEOrder, issuance: Issuance) -> float | None:
        try:
            return await self._advance(waiter, order, issuance)
        except Vanished:
            raise
        except Refused as refused:
            return await self._refuse(waiter, order, refused)
        except Unavailable as error:
            if self._deadline(order) > self._clock():
                raise
            return await self._apply(waiter, order, CAUnavailable(error.detail))
        except Exception:  # whatever a CA returns, no order stays in processing for ever
            logger.exception("issuance failed", extra={"order": order.metadata.name})
            return await self._apply(waiter, order, Failed("The server has failed; its log has the error."))

    async def _advance(self, waiter: Waiter, order: ACMEOrder, issuance: Issuance) -> float | None:
        now = self._clock()
        if issuance.not_before is not None and issuance.not_before > now:
            self._leave_line(waiter.key)
            return await self._bide(waiter, order, until=issuance.not_before)
        attempt = await self._prepare(order, issuance)
        if isinstance(attempt, Failed):
            return await self._apply(waiter, order, attempt)
        external = attempt.profile.authority.spec.external
        maximum = external.maximum_requests if external is not None else 1
        holder = order.tenant or order.spec.account_ref.name
        if not self._turns.has_turn(attempt.profile.authority.metadata.uid, waiter.key, holder, maximum=maximum):
            text = (
                f"the CA takes {maximum} requests at a time (spec.external.maximumRequests), from one client half of"
                " those that others leave; the order has to wait"
            )
            return await self._apply(waiter, order, Pending("WaitingForIssuer", text))
        if waiter.type in CLAIMED and not has_claim(self._process, issuance):
            return await self._take_over(waiter, order, issuance)
        return await self._ask(waiter, attempt)

    async def _ask(self, waiter: Waiter, attempt: Attempt) -> float | None:
        """Ask the CA, once for each attempt, and do what its answer means."""
        submission = waiter.submission
        if submission is None or submission.name != attempt.submission.name:
            await self._waiting.forget(waiter)
            if waiter.type in CLAIMED and not await self._is_current(attempt.order, attempt.issuance):
                return 0.0
            submission = attempt.submission
            self._waiting.note(waiter, submission, attempt.issuer)
            await attempt.issuer.begin(submission)
        answer = await attempt.issuer.look(submission)
        if isinstance(answer, Returned):
            self._metrics.count_issuer_attempt(waiter.type, "returned")
            # A later end of the CA does not change what was asked.
            rejected = await self._release.store(replace(attempt, submission=submission), answer.pem)
            if rejected is not None:
                return await self._apply(waiter, attempt.order, rejected)
            await self._end(waiter)
            return None
        return await self._apply(waiter, attempt.order, answer)

    async def _prepare(self, order: ACMEOrder, issuance: Issuance) -> Attempt | Failed:
        """What the attempt asks whom, or why it cannot ask. Raises Refused and Unavailable."""
        namespace, asked = order.metadata.namespace, order.status.authority
        try:
            directory = self._profiles.of(namespace, order.spec.profile_ref.name)
        except NotFound as error:  # it may be created again in a moment
            raise Unavailable(error.detail) from error
        profile = self._profiles.of_order(directory, order)
        authority = profile.authority
        if asked is None or (authority.metadata.name, authority_type(authority)) != (asked.name, asked.type):
            return Failed("The profile has another CA since the request was accepted.", is_final=True)
        der = order.status.request or b""
        request = await in_thread_if_large(policy.parse_csr, der, size=len(der))
        await self._chains.recall(authority)
        submission = submission_of(order, request, profile, ends=self._release.end_of(authority))
        if submission.duration <= timedelta(0):
            return Failed("The CA ends too soon.", is_final=True)
        try:
            issuer = self._issuers.of(authority)
        except IssuerNotReady as error:
            raise Unavailable(str(error)) from error
        return Attempt(order, issuance, directory, profile, issuer, submission)

    async def _apply(self, waiter: Waiter, order: ACMEOrder, obstacle: Obstacle) -> float | None:
        """Do what the answer means for the order. Raises Unavailable."""
        issuance, now = order.status.issuance, self._clock()
        if issuance is None or order.status.accepted is None:
            await self._end(waiter)
            return None
        accepted = since(order, now=now)
        timeout = timeout_of(self._authority_of(order))
        step = next_step(issuance, obstacle, accepted=accepted, timeout=timeout, now=now, schedule=self._schedule)
        match step:
            case Wait():
                return await self._keep_waiting(
                    order, issuance, step, waited=now - accepted, left=accepted + timeout - now
                )
            case TryAgain():
                self._count(waiter.type, obstacle)
                await self._try_again(waiter, order, issuance, step)
                return max(0.0, (step.not_before - now).total_seconds())
            case GiveUp():
                self._count(waiter.type, obstacle)
                ended = await self._orders.change(
                    order, partial(issuance_waiting.given_up, seen=issuance, step=step, now=now)
                )
                if ended.status.state != "invalid":  # it has moved on
                    return 0.0
                self._metrics.count_order("invalid", order.profile_key)
                self._metrics.observe_issuance(
                    _RESULTS[step.reason], seconds_since_accepted(order, now), issuer=waiter.type
                )
                extra = {"order": order.metadata.name, "reason": step.reason, "attempt": issuance.attempt}
                logger.warning("certificate cannot be issued", extra=extra | {"error": step.message})
                await self._end(waiter)
                return None

    async def _keep_waiting(
        self, order: ACMEOrder, issuance: Issuance, step: Wait, *, waited: timedelta, left: timedelta
    ) -> float:
        """Tell people, once a client has to wait, and return when to look again."""
        inline = timedelta(seconds=self._pace.inline)
        if waited < inline:
            return (inline - waited).total_seconds()
        transition = partial(issuance_waiting.waiting, seen=issuance, step=step, now=self._clock())
        await self._orders.change(order, transition)
        pause = self._pace.look if waited < timedelta(minutes=1) else self._pace.later
        return max(0.0, min(pause, left.total_seconds()))

    async def _try_again(self, waiter: Waiter, order: ACMEOrder, issuance: Issuance, step: TryAgain) -> None:
        now = self._clock()
        claim = claim_of(self._process, waiter.type, now=now)
        transition = partial(issuance_waiting.again, seen=issuance, step=step, claim=claim, now=now)
        changed = await self._orders.change(order, transition)
        self._leave_line(waiter.key)
        if changed.status.issuance != issuance:
            await self._waiting.forget(waiter)

    async def _bide(self, waiter: Waiter, order: ACMEOrder, *, until: datetime) -> float | None:
        """Wait for a time that the order tells, and not much beyond the order's own: clocks differ."""
        now = self._clock()
        last = self._deadline(order) + timedelta(seconds=self._pace.patience)  # another process ends it at its time
        if now >= last:
            text = "The order's time is over, and its next attempt is said to begin or to end later still."
            return await self._apply(waiter, order, Pending("WaitingForIssuer", text))
        return min((until - now).total_seconds(), (last - now).total_seconds(), self._pace.later)

    async def _take_over(self, waiter: Waiter, order: ACMEOrder, issuance: Issuance) -> float | None:
        """Begin an attempt in place of a process that has died; its CA may have signed a certificate nobody has."""
        now, lasts = self._clock(), timedelta(seconds=self._pace.claimed)
        left = remaining_claim(self._process, issuance, lasts=lasts, now=now)
        if left > timedelta(0):
            self._leave_line(waiter.key)
            return await self._bide(waiter, order, until=now + left)
        self._metrics.count_issuer_attempt(waiter.type, "ambiguous")
        step = TryAgain(now, "The server that asked the CA has ended; another one asks again.", issuance.not_after)
        await self._try_again(waiter, order, issuance, step)
        return 0.0

    async def _refuse(self, waiter: Waiter, order: ACMEOrder, refused: Refused) -> float | None:
        """End an order that must not have a certificate any more."""
        problem = StoredProblem(type=refused.type.value, detail=refused.detail)
        failed = partial(transitions.failed, problem=problem, reason="IssuanceFailed", now=self._clock())
        await self._orders.change(order, failed)
        self._metrics.count_order("invalid", order.profile_key)
        await self._end(waiter)
        return None

    async def _end(self, waiter: Waiter) -> None:
        """Let the client know, and the next order begin; then remove the request."""
        waiter.settled.set()
        self._leave_line(waiter.key)
        await self._waiting.forget(waiter)

    def _leave_line(self, key: Key) -> None:
        for each in self._turns.leave(key):
            self._waiting.wake_order(each)

    def _count(self, type_: AuthorityType, obstacle: Obstacle) -> None:
        match obstacle:
            case CAUnavailable(_, is_ambiguous):
                result = "ambiguous" if is_ambiguous else "unavailable"
            case Pending():
                result = "timeout"
            case Rejected():  # counted where it was found
                return
            case _:
                result = type(obstacle).__name__.lower()
        self._metrics.count_issuer_attempt(type_, result)

    async def _is_current(self, order: ACMEOrder, issuance: Issuance) -> bool:
        """Whether the order still waits for this attempt. Raises Unavailable."""
        found = await self._orders.current(*key_of(order))
        return found is not None and found.metadata.uid == order.metadata.uid and found.status.issuance == issuance

    def _authority_of(self, order: ACMEOrder) -> CertificateAuthority | None:
        asked = order.status.authority
        return None if asked is None else self._find_authority(order.metadata.namespace, asked.name)

    def _deadline(self, order: ACMEOrder) -> datetime:
        return since(order, now=self._clock()) + timeout_of(self._authority_of(order))
