"""finalize (RFC 8555, 7.4): issue the certificate of an order, once.

With an internal CA this is one write. Serial number and dates follow from the stored order, so replicas that race, and
a server that repeats its work after a crash, make the same certificate. An order that has been ready for some time
first stores the CSR and the time: dates counted from when it became ready would cost lifetime.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from weakref import WeakValueDictionary

from acme_server.audit.log import decisions
from acme_server.metrics import Metrics
from acme_server.model import Caller, Profile
from acme_server.orders import transitions
from acme_server.orders.caa import CAA
from acme_server.orders.certificate_storage import CertificateStorage
from acme_server.orders.certificate_template import left_out, template
from acme_server.orders.external_issuance import ExternalIssuance
from acme_server.orders.issuance_admission import IssuanceAdmission
from acme_server.orders.lifetimes import base_time, is_fresh, is_over, shortened_from
from acme_server.orders.submission import require_verbatim
from acme_server.problems import NotFound, ProblemType, Refused, Unavailable
from acme_server.state.quotas import ObjectQuota
from acme_server.state.store import Store
from acme_server.state.weight import weigh_issuance
from acme_server.urls import URLs
from kms.clock import Clock
from kms.contract import DURATION_SHORTENED, minimum_rest
from kms.issuers import Issuer, IssuerNotReady, Issuers
from kms.logs import log_often
from kms.pki.csr import CertificateRequest
from kms.pki.returned.form import MAXIMUM_SIZE
from kms.resources.meta import Key, is_true, key_of
from kms.resources.orders import ACMEOrder, StoredProblem

logger = logging.getLogger(__name__)


class OrderFinalization:
    """Accepts CSRs and issues certificates for them."""

    def __init__(
        self,
        *,
        orders: Store[ACMEOrder],
        storage: CertificateStorage,
        admission: IssuanceAdmission,
        issuers: Issuers,
        external: ExternalIssuance,
        caa: CAA,
        urls: URLs,
        quota: ObjectQuota[ACMEOrder],
        clock: Clock,
        metrics: Metrics,
        on_issuer_failure: Callable[[Key, str], None] = lambda _profile, _why: None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._orders = orders
        self._storage = storage
        self._admission = admission
        self._issuers = issuers
        self._external = external
        self._caa = caa
        self._urls = urls
        self._quota = quota
        self._clock = clock
        self._metrics = metrics
        self._on_issuer_failure = on_issuer_failure
        self._timer = timer
        # One signature per order at a time: the second request finds the certificate of the first.
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def finalize(self, caller: Caller, order: ACMEOrder, der: bytes) -> ACMEOrder:
        """Issue the certificate. The order stays in processing while the issuer is not ready, or takes long.

        The same CSR again gets the same order. Raises Refused: orderNotReady, badCSR, invalidProfile, malformed,
        rejectedIdentifier and caa, after which the order stays ready; AccountNotValid, NotFound and Unavailable.
        """
        async with self._locks.setdefault(key_of(order), asyncio.Lock()):
            order = await self._finalize(caller, order, der)
        return await self._external.wait(order)

    async def _finalize(self, caller: Caller, order: ACMEOrder, der: bytes) -> ACMEOrder:
        digest = hashlib.sha256(der).hexdigest()
        # This writes nothing. The store repeats a refusal on a live read: none is based on an old version.
        order = await self._orders.change(
            order, partial(transitions.require_finalizable, digest=digest, now=self._clock())
        )
        if transitions.is_replay(order, digest):
            is_waiting = order.status.issuance is not None
            return order if is_waiting else await self._finish(caller.profile, order)
        order = await self._admission.require_authorizations(caller, order)
        profile, request = await self._admission.admit(caller, order, der)
        self._quota.require_room(_weight(order, profile, request=len(der)))
        await self._caa.check_order(order)
        is_external = profile.authority.spec.external is not None
        if is_external:
            require_verbatim(order, request, profile)
        # Last, because all of this takes time: an account that is stopped meanwhile gets nothing.
        await self._admission.check_account(caller)
        now = self._clock()
        if is_external:
            return await self._external.begin(profile, order, request)
        if not is_fresh(_base(order, now), profile.duration, now=now):
            order = await self._orders.change(order, partial(transitions.accepted, request=der, digest=digest, now=now))
        return await self._issue(profile, order, request)

    async def resume(self, profile: Profile, order: ACMEOrder) -> ACMEOrder:
        """Continue an order in processing: its server may have died, or the issuer was not ready."""
        lock = self._locks.setdefault(key_of(order), asyncio.Lock())
        if lock.locked():  # being processed already
            return order
        async with lock:
            try:
                return await self._finish(profile, order)
            except Refused:  # the order has ended meanwhile: return its latest version
                ended = await self._orders.read_live(*key_of(order))
            if ended is None:
                raise NotFound
            return ended

    async def _finish(self, profile: Profile, order: ACMEOrder) -> ACMEOrder:
        if order.status.state != "processing":
            return order
        try:
            issuing, request = await self._admission.readmit(profile, order)
        except Refused as refused:
            return await self._fail(order, refused.type, refused.detail)
        return await self._issue(issuing, order, request)

    async def _issue(self, profile: Profile, order: ACMEOrder, request: CertificateRequest) -> ACMEOrder:
        started = self._timer()
        now = self._clock()
        try:
            issuer = self._issuer(profile, order, now)
            leaf = template(
                order, request, profile, base=_base(order, now), ca_not_after=issuer.not_after, urls=self._urls
            )
            certificate = await issuer.sign(leaf)
        except IssuerNotReady as error:
            self._metrics.observe_issuance("not-ready", self._timer() - started)
            self._on_issuer_failure(order.profile_key, str(error))
            return await self._wait_for_issuer(order, str(error))
        except ValueError as error:
            # No retry repairs these combinations, so the order ends.
            self._metrics.observe_issuance("failed", self._timer() - started)
            logger.warning("certificate cannot be issued", extra={"order": order.metadata.name, "error": str(error)})
            detail = "The certificate cannot be issued with the dates and contents that order and profile ask for."
            return await self._fail(order, ProblemType.SERVER_INTERNAL, detail)
        self._metrics.observe_issuance("signed", self._timer() - started)
        omitted = left_out(request, leaf)
        finished = await self._storage.store(
            order,
            digest=request.digest,
            certificate=certificate,
            left_out=omitted,
            shortened_from=shortened_from(order, certificate, profile.duration),
            now=now,
        )
        self._metrics.count_order("valid", order.profile_key)
        if is_true(finished.status.conditions, DURATION_SHORTENED):
            self._metrics.count_shortened()
        log_often(
            decisions,
            "certificate issued",
            {
                "order": finished.metadata.name,
                "profile": "/".join(profile.key),
                "account": finished.spec.account_ref.name,
                "names": ",".join(each.value for each in finished.spec.identifiers),
                "serial": finished.status.serial_number,
                "left_out": ", ".join(finished.status.left_out),
            },
        )
        return finished

    def _issuer(self, profile: Profile, order: ACMEOrder, now: datetime) -> Issuer:
        issuer = self._issuers.of(profile.authority)
        if issuer.not_after <= now:
            raise IssuerNotReady("the CA's certificate has expired")
        if order.spec.not_after is None and issuer.not_after - now < minimum_rest(profile.duration):
            raise IssuerNotReady("the CA's certificate, or one above it, ends too soon")
        return issuer

    async def _wait_for_issuer(self, order: ACMEOrder, why: str) -> ACMEOrder:
        """Leave the order in its state: processing until it is too old, or ready."""
        logger.warning("issuer is not ready", extra={"order": order.metadata.name, "error": why})
        if order.status.state != "processing":
            raise Unavailable("The issuing CA is not ready.", 10)
        if is_over(order.spec.expires, now=self._clock()):
            return await self._fail(order, ProblemType.SERVER_INTERNAL, "The issuing CA was not ready in time.")
        return order

    async def _fail(self, order: ACMEOrder, type_: ProblemType, detail: str) -> ACMEOrder:
        problem = StoredProblem(type=type_.value, detail=detail)
        failed = await self._orders.change(
            order, partial(transitions.failed, problem=problem, reason="IssuanceFailed", now=self._clock())
        )
        self._metrics.count_order("invalid", order.profile_key)
        return failed


def _weight(order: ACMEOrder, profile: Profile, *, request: int) -> int:
    """The octets that the order may grow by."""
    authority = profile.authority
    if authority.spec.external is not None:
        return weigh_issuance(order, request=request, chain=MAXIMUM_SIZE, waits=True)
    return weigh_issuance(
        order, request=request, chain=len(authority.status.chain or authority.status.certificate or "")
    )


def _base(order: ACMEOrder, now: datetime) -> datetime:
    return base_time(order, created=order.metadata.creation_timestamp or now, now=now)
