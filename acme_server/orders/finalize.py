"""From a CSR to a certificate (RFC 8555, 7.4): once for each order, however often and wherever it is asked for.

With an internal CA this is one write. The serial number and the dates follow from what is stored, so replicas that
race, and a server that repeats after a crash what it may have done already, make the same certificate.
An order that has been ready for long first keeps the CSR and the time, because its old base time would cost lifetime.
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

from acme_server.accounts.eab_credentials import EABCredentials
from acme_server.jose.jwk import thumbprint
from acme_server.metrics import Metrics
from acme_server.orders import policy, transitions
from acme_server.orders.caa import CAA
from acme_server.orders.certificate_template import template
from acme_server.orders.lifetimes import base_time, is_fresh, is_over
from acme_server.orders.reliance import AuthorizationReuse
from acme_server.problems import AccountNotValid, NotFound, ProblemType, Refused, Unavailable
from acme_server.profiles import Profile, Profiles
from acme_server.state.account_keys import AccountKeys, account_name
from acme_server.state.certificates import Certificates
from acme_server.state.store import Store
from acme_server.tasks import in_thread_if_large
from acme_server.urls import URLs
from kms.clock import Clock
from kms.issuers import Issuer, IssuerNotReady, Issuers
from kms.pki.csr import CertificateRequest
from kms.pki.keys import fingerprint
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder, StoredProblem

logger = logging.getLogger(__name__)


class OrderFinalization:
    """Accepts CSRs and has certificates made for them."""

    def __init__(
        self,
        *,
        orders: Store[ACMEOrder],
        accounts: Store[ACMEAccount],
        profiles: Profiles,
        credentials: EABCredentials,
        authorization_reuse: AuthorizationReuse,
        account_keys: AccountKeys,
        certificates: Certificates,
        issuers: Issuers,
        caa: CAA,
        urls: URLs,
        clock: Clock,
        metrics: Metrics,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._orders = orders
        self._accounts = accounts
        self._profiles = profiles
        self._credentials = credentials
        self._authorization_reuse = authorization_reuse
        self._account_keys = account_keys
        self._certificates = certificates
        self._issuers = issuers
        self._caa = caa
        self._urls = urls
        self._clock = clock
        self._metrics = metrics
        self._timer = timer
        # One signature an order at a time: who comes second finds the certificate of the first.
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def finalize(self, profile: Profile, account: ACMEAccount, order: ACMEOrder, der: bytes) -> ACMEOrder:
        """The order with its certificate, or in processing until the issuer is ready. `profile` is the directory's.

        The same CSR again is a repetition and gets the order as it is. Raises Refused: orderNotReady,
        badCSR and caa, after which the order stays ready, 401 for a deactivated account; and Unavailable.
        """
        digest = hashlib.sha256(der).hexdigest()
        async with self._locks.setdefault(key_of(order), asyncio.Lock()):
            order = await self._decided(order, digest)
            if transitions.replayed(order, digest):
                return await self._finished(profile, order)
            await self._check_account(account)
            order = await self._still_authorized(profile, account, order)
            self._credentials.admit_profile(account, order.spec.profile if order.spec.contents_ref else None)
            profile = self._profiles.of_order(profile, order)
            request = await in_thread_if_large(policy.parsed, der, size=len(der))
            policy.admit_request(request, order, profile, self._credentials.narrowing(account))
            self._check_compromised(request)
            await self._check_key(profile, account, request)
            await self._caa.admit(order)
            now = self._clock()
            if not is_fresh(_base(order, now), profile.duration, now=now):
                order = await self._orders.change(
                    order, partial(transitions.accepted, request=der, digest=digest, now=now)
                )
            return await self._issued(profile, order, request)

    async def _still_authorized(self, profile: Profile, account: ACMEAccount, order: ACMEOrder) -> ACMEOrder:
        """The order, unless it relies on what holds no longer: then it ends, and Refused (orderNotReady) is raised."""
        lost = await self._authorization_reuse.lost(order, profile, account) if order.spec.authorized else {}
        if lost:
            now = self._clock()
            order = await self._orders.change(order, partial(transitions.relinquished, lost=lost, now=now))
            self._metrics.count_order("invalid")
            transitions.finalizable(order, now=now)
        return order

    async def resumed(self, profile: Profile, order: ACMEOrder) -> ACMEOrder:
        """Go on with an order that is in processing: its server may have died, or the issuer was not ready."""
        lock = self._locks.setdefault(key_of(order), asyncio.Lock())
        if lock.locked():  # at work here already
            return order
        async with lock:
            try:
                return await self._finished(profile, order)
            except Refused:  # it has ended while the certificate was made; that is the answer to who looks at it
                ended = await self._orders.fresh(*key_of(order))
            if ended is None:
                raise NotFound
            return ended

    async def _decided(self, order: ACMEOrder, digest: str) -> ACMEOrder:
        """The order in a state that allows an answer: ready, or finalized with this CSR; read live before a "no"."""
        key = key_of(order)
        stored = await self._orders.get(*key)
        if stored is not None and _answerable(stored, digest, self._clock):
            return stored
        stored = await self._orders.fresh(*key)
        if stored is None:
            raise NotFound
        if not transitions.replayed(stored, digest):
            transitions.finalizable(stored, now=self._clock())
        return stored

    async def _check_account(self, account: ACMEAccount) -> None:
        """Raise AccountNotValid where the account has ended meanwhile, or its key has not signed this."""
        current = await self._current(key_of(account))
        if current is None:
            raise AccountNotValid
        if current.thumbprint != account.thumbprint:
            raise AccountNotValid("The account has another key by now.")

    async def _current(self, account: tuple[str, str]) -> ACMEAccount | None:
        """The account, if it may have a certificate now: as it is stored, where another replica may have ended it."""
        current = await self._accounts.current(*account)
        return current if current is not None and current.status.state == "valid" else None

    async def _check_key(self, profile: Profile, account: ACMEAccount, request: CertificateRequest) -> None:
        key = thumbprint(request.public_key)
        if key is None:
            return
        read = partial(self._accounts.fresh, profile.namespace, account_name(*profile.key, key))
        if key == account.thumbprint or await self._account_keys.is_account_key(key, read):
            raise Refused(ProblemType.BAD_CSR, "The key of the certificate request is the key of an ACME account.")

    def _check_compromised(self, request: CertificateRequest) -> None:
        """A key that somebody else may have must not be certified again."""
        if self._certificates.is_compromised(fingerprint(request.public_key)):
            raise Refused(
                ProblemType.BAD_CSR,
                "The key of the certificate request is compromised: a certificate with it was revoked for that reason."
                " Make a new key.",
            )

    async def _finished(self, profile: Profile, order: ACMEOrder) -> ACMEOrder:
        if order.status.state != "processing":
            return order
        account = await self._current((order.metadata.namespace, order.spec.account_ref.name))
        if account is None:
            return await self._failed(order, ProblemType.UNAUTHORIZED, "The account was deactivated.")
        if order.status.request is None:
            return await self._failed(order, ProblemType.SERVER_INTERNAL, "The certificate request was lost.")
        await self._still_authorized(profile, account, order)
        try:
            profile = self._profiles.of_order(profile, order)
            await self._caa.admit(order)
        except Refused as refused:  # what was lent is gone and nothing will bring it back, or CAA forbids
            return await self._failed(order, refused.type, refused.detail)
        der = order.status.request
        return await self._issued(profile, order, await in_thread_if_large(policy.parsed, der, size=len(der)))

    async def _issued(self, profile: Profile, order: ACMEOrder, request: CertificateRequest) -> ACMEOrder:
        started = self._timer()
        now = self._clock()
        try:
            issuer = self._issuer(profile, now)
            leaf = template(
                order, request, profile, base=_base(order, now), ca_not_after=issuer.not_after, urls=self._urls
            )
            certificate = await issuer.sign(leaf)
        except IssuerNotReady as error:
            self._metrics.observe_issuance("not-ready", self._timer() - started)
            return await self._waiting(order, str(error))
        except ValueError as error:
            # What is left are combinations that no retry repairs: the order ends, and says why.
            self._metrics.observe_issuance("failed", self._timer() - started)
            logger.warning("certificate cannot be issued", extra={"order": order.metadata.name, "error": str(error)})
            detail = "The certificate cannot be issued with the dates and contents that order and profile ask for."
            return await self._failed(order, ProblemType.SERVER_INTERNAL, detail)
        self._metrics.observe_issuance("signed", self._timer() - started)
        finished = await self._orders.change(
            order, partial(transitions.issued, digest=request.digest, certificate=certificate, now=now)
        )
        self._metrics.count_order("valid")
        logger.info(
            "certificate issued",
            extra={
                "order": finished.metadata.name,
                "profile": "/".join(profile.key),
                "account": finished.spec.account_ref.name,
                "names": ",".join(each.value for each in finished.spec.identifiers),
                "serial": finished.status.serial_number,
            },
        )
        return finished

    def _issuer(self, profile: Profile, now: datetime) -> Issuer:
        issuer = self._issuers.of(profile.authority)
        if issuer.not_after <= now:
            raise IssuerNotReady("the CA's certificate has expired")
        return issuer

    async def _waiting(self, order: ACMEOrder, why: str) -> ACMEOrder:
        """Nothing was signed: an accepted order stays in processing, until it is too old; any other stays ready."""
        logger.warning("issuer is not ready", extra={"order": order.metadata.name, "error": why})
        if order.status.state != "processing":
            raise Unavailable("The issuing CA is not ready.", 10)
        if is_over(order.spec.expires, now=self._clock()):
            return await self._failed(order, ProblemType.SERVER_INTERNAL, "The issuing CA was not ready in time.")
        return order

    async def _failed(self, order: ACMEOrder, type_: ProblemType, detail: str) -> ACMEOrder:
        problem = StoredProblem(type=type_.value, detail=detail)
        failed = await self._orders.change(
            order, partial(transitions.failed, problem=problem, reason="IssuanceFailed", now=self._clock())
        )
        self._metrics.count_order("invalid")
        return failed


def _base(order: ACMEOrder, now: datetime) -> datetime:
    return base_time(order, created=order.metadata.creation_timestamp or now)


def _answerable(order: ACMEOrder, digest: str, clock: Clock) -> bool:
    if transitions.replayed(order, digest):
        return True
    try:
        transitions.finalizable(order, now=clock())
    except Refused:
        return False
    return True
