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

from acme_server.accounts.eab_credentials import EABCredentials
from acme_server.accounts.transitions import require_valid
from acme_server.jose.jwk import thumbprint
from acme_server.metrics import Metrics
from acme_server.model import Caller, Profile
from acme_server.orders import policy, transitions
from acme_server.orders.authorization_reuse import AuthorizationReuse
from acme_server.orders.caa import CAA
from acme_server.orders.certificate_template import left_out, template
from acme_server.orders.lifetimes import base_time, is_fresh, is_over, shortened_from
from acme_server.orders.policy import Objection
from acme_server.orders.spec_admission import admit_spec
from acme_server.problems import AccountNotValid, NotFound, ProblemType, Refused, Unavailable
from acme_server.profiles import Profiles
from acme_server.state.account_keys import AccountKeys, account_name
from acme_server.state.certificates import Certificates
from acme_server.state.quotas import ObjectQuota
from acme_server.state.store import Store
from acme_server.state.weight import weigh_issuance
from acme_server.tasks import in_thread_if_large
from acme_server.urls import URLs
from kms.clock import Clock
from kms.contract import DURATION_SHORTENED, minimum_rest
from kms.issuers import Issuer, IssuerNotReady, Issuers
from kms.pki.csr import CertificateRequest
from kms.pki.keys import fingerprint
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import is_true, key_of
from kms.resources.orders import ACMEOrder, StoredProblem

logger = logging.getLogger(__name__)


class OrderFinalization:
    """Accepts CSRs and issues certificates for them."""

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
        quota: ObjectQuota[ACMEOrder],
        objection: Objection,
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
        self._quota = quota
        self._objection = objection
        self._clock = clock
        self._metrics = metrics
        self._timer = timer
        # One signature per order at a time: the second request finds the certificate of the first.
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def finalize(self, caller: Caller, order: ACMEOrder, der: bytes) -> ACMEOrder:
        """Issue the certificate. The order stays in processing while the issuer is not ready.

        The same CSR again gets the same order. Raises Refused: orderNotReady, badCSR, invalidProfile, malformed,
        rejectedIdentifier and caa, after which the order stays ready; AccountNotValid, NotFound and Unavailable.
        """
        digest = hashlib.sha256(der).hexdigest()
        async with self._locks.setdefault(key_of(order), asyncio.Lock()):
            # This writes nothing. The store repeats a refusal on a live read: none is based on an old version.
            order = await self._orders.change(
                order, partial(transitions.require_finalizable, digest=digest, now=self._clock())
            )
            if transitions.is_replay(order, digest):
                return await self._finish(caller.profile, order)
            order = await self._require_authorizations(caller, order)
            profile, request = await self._admit(caller, order, der, now=self._clock())
            await self._check_key(caller, request)
            chain = len(profile.authority.status.chain or profile.authority.status.certificate or "")
            self._quota.require_room(weigh_issuance(order, request=len(der), chain=chain))
            await self._caa.check_order(order)
            # Last, because all of this takes time: an account that is stopped meanwhile gets nothing.
            await self._check_account(caller)
            now = self._clock()
            if not is_fresh(_base(order, now), profile.duration, now=now):
                order = await self._orders.change(
                    order, partial(transitions.accepted, request=der, digest=digest, now=now)
                )
            return await self._issue(profile, order, request)

    async def _admit(
        self, caller: Caller, order: ACMEOrder, der: bytes, *, now: datetime
    ) -> tuple[Profile, CertificateRequest]:
        """The profile that issues, and the CSR, by the configuration as it is now. `now`: when the CSR is accepted.

        Raises Refused for a CSR, for what the order claims, and for a compromised key; and Unavailable.
        """
        account, directory = caller.account, caller.profile
        self._credentials.admit_profile(account, order.spec.profile if order.spec.contents_ref else None)
        profile = self._profiles.of_order(directory, order)
        request = await in_thread_if_large(policy.parse_csr, der, size=len(der))
        granted = self._credentials.granted(account, directory.acme)
        policy.admit_request(request, order, profile, self._credentials.narrowing(account), granted)
        clients = self._credentials.clients(account)
        namespace = clients.namespace if clients is not None else None
        admit_spec(order, directory, client_namespace=namespace, objection=self._objection, now=now)
        self._check_compromised(request)
        return profile, request

    async def _require_authorizations(self, caller: Caller, order: ACMEOrder) -> ACMEOrder:
        """The order. If it reuses authorizations that are lost, end it and raise Refused (orderNotReady)."""
        lost = await self._authorization_reuse.find_lost(order, caller) if order.spec.authorized else {}
        if lost:
            now = self._clock()
            order = await self._orders.change(order, partial(transitions.relinquished, lost=lost, now=now))
            self._metrics.count_order("invalid", order.profile_key)
            transitions.require_ready(order, now=now)
        return order

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

    async def _check_account(self, caller: Caller) -> None:
        """Raise Refused if the account was stopped, deactivated or changed its key since the request was signed."""
        current = await self._active_account(caller.profile, *key_of(caller.account))
        if current.thumbprint != caller.account.thumbprint:
            raise AccountNotValid("The account has changed its key.")

    async def _active_account(self, profile: Profile, namespace: str, name: str) -> ACMEAccount:
        """The latest version of the account. Raises Refused if it may not act, and Unavailable."""
        account = await self._accounts.current(namespace, name)
        if account is None:
            raise AccountNotValid
        await self._credentials.admit(account, profile.acme)
        return require_valid(account)

    async def _check_key(self, caller: Caller, request: CertificateRequest) -> None:
        key = thumbprint(request.public_key)
        if key is None:
            return
        read = partial(self._accounts.read_live, caller.profile.namespace, account_name(*caller.profile.key, key))
        if key == caller.account.thumbprint or await self._account_keys.is_account_key(key, read):
            raise Refused(ProblemType.BAD_CSR, "The key of the certificate request is the key of an ACME account.")

    def _check_compromised(self, request: CertificateRequest) -> None:
        """Raise Refused (badCSR) for a key that was compromised."""
        if self._certificates.is_compromised(fingerprint(request.public_key)):
            raise Refused(
                ProblemType.BAD_CSR,
                "The key of the certificate request is compromised: a certificate with it was revoked for that reason."
                " Make a new key.",
            )

    async def _finish(self, profile: Profile, order: ACMEOrder) -> ACMEOrder:
        if order.status.state != "processing":
            return order
        holder = order.metadata.namespace, order.spec.account_ref.name
        try:
            account = await self._active_account(profile, *holder)
        except Refused as refused:
            return await self._fail(order, ProblemType.UNAUTHORIZED, refused.detail)
        der = order.status.request
        if der is None:
            return await self._fail(order, ProblemType.SERVER_INTERNAL, "The accepted certificate request is missing.")
        caller = Caller(profile, account)
        await self._require_authorizations(caller, order)
        try:
            issuing, request = await self._admit(caller, order, der, now=order.status.accepted or self._clock())
            await self._caa.check_order(order)
            await self._active_account(profile, *holder)
        except Refused as refused:
            # Meanwhile the order profile was withdrawn, names were taken away, the key was compromised, CAA forbids, or
            # the account was stopped.
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
            return await self._wait_for_issuer(order, str(error))
        except ValueError as error:
            # No retry repairs these combinations, so the order ends.
            self._metrics.observe_issuance("failed", self._timer() - started)
            logger.warning("certificate cannot be issued", extra={"order": order.metadata.name, "error": str(error)})
            detail = "The certificate cannot be issued with the dates and contents that order and profile ask for."
            return await self._fail(order, ProblemType.SERVER_INTERNAL, detail)
        self._metrics.observe_issuance("signed", self._timer() - started)
        omitted = left_out(request, leaf)
        finished = await self._orders.change(
            order,
            partial(
                transitions.issued,
                digest=request.digest,
                certificate=certificate,
                left_out=omitted,
                shortened_from=shortened_from(order, certificate, profile.duration),
                now=now,
            ),
        )
        self._metrics.count_order("valid", order.profile_key)
        if is_true(finished.status.conditions, DURATION_SHORTENED):
            self._metrics.count_shortened()
        logger.info(
            "certificate issued",
            extra={
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


def _base(order: ACMEOrder, now: datetime) -> datetime:
    return base_time(order, created=order.metadata.creation_timestamp or now)
