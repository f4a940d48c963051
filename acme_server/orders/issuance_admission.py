"""Whether a certificate may be issued for an order: by configuration, account and proofs as they are now.

finalize asks before anything is signed. If issuing takes long, everything is asked again before the certificate is
stored.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from functools import partial

from acme_server.accounts.eab_credentials import EABCredentials
from acme_server.accounts.transitions import require_valid
from acme_server.jose.jwk import thumbprint
from acme_server.metrics import Metrics
from acme_server.model import Caller, Profile
from acme_server.orders import policy, transitions
from acme_server.orders.authorization_reuse import AuthorizationReuse
from acme_server.orders.caa import CAA
from acme_server.orders.policy import Objection
from acme_server.orders.spec_admission import admit_spec
from acme_server.problems import AccountNotValid, ProblemType, Refused
from acme_server.profiles import Profiles
from acme_server.state.account_keys import AccountKeys, account_name
from acme_server.state.certificates import Certificates
from acme_server.state.store import Store
from acme_server.tasks import in_thread_if_large
from kms.clock import Clock
from kms.pki.csr import CertificateRequest
from kms.pki.keys import fingerprint
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder


class IssuanceAdmission:
    """Checks orders and certificate requests before a certificate is issued, or handed out."""

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
        caa: CAA,
        objection: Objection,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._orders = orders
        self._accounts = accounts
        self._profiles = profiles
        self._credentials = credentials
        self._authorization_reuse = authorization_reuse
        self._account_keys = account_keys
        self._certificates = certificates
        self._caa = caa
        self._objection = objection
        self._clock = clock
        self._metrics = metrics

    async def admit(self, caller: Caller, order: ACMEOrder, der: bytes) -> tuple[Profile, CertificateRequest]:
        """The profile that issues, and the CSR, which is new.

        Raises Refused: orderNotReady, badCSR, invalidProfile, malformed, rejectedIdentifier; and Unavailable.
        """
        profile, request = await self._admit(caller, order, der, now=self._clock())
        await self._check_key(caller, request)
        return profile, request

    async def readmit(self, profile: Profile, order: ACMEOrder) -> tuple[Profile, CertificateRequest]:
        """The profile that issues, and the CSR that the order has accepted. `profile` is the directory's.

        Raises Refused if meanwhile the account was stopped, the order profile was withdrawn, names were taken away, the
        key was compromised or CAA forbids; and Unavailable.
        """
        holder = order.metadata.namespace, order.spec.account_ref.name
        try:
            account = await self.active_account(profile, *holder)
        except Refused as refused:
            raise Refused(ProblemType.UNAUTHORIZED, refused.detail) from refused
        der = order.status.request
        if der is None:
            raise Refused(ProblemType.SERVER_INTERNAL, "The accepted certificate request is missing.")
        caller = Caller(profile, account)
        order = await self._relinquish_lost(caller, order)
        if order.status.state != "processing":
            detail = order.status.error.detail if order.status.error else "The order has ended."
            raise Refused(ProblemType.UNAUTHORIZED, detail)
        admitted = await self._admit(caller, order, der, now=order.status.accepted or self._clock())
        await self._caa.check_order(order)
        await self.active_account(profile, *holder)
        return admitted

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
        clients = self._credentials.clients(account)
        granted = self._credentials.granted(clients, directory)
        policy.admit_request(request, order, profile, self._credentials.narrowing(account), granted)
        namespace = clients.namespace if clients is not None else None
        admit_spec(order, directory, client_namespace=namespace, objection=self._objection, now=now)
        self._check_compromised(request)
        return profile, request

    async def require_authorizations(self, caller: Caller, order: ACMEOrder) -> ACMEOrder:
        """The order. If it reuses authorizations that are lost, end it and raise Refused (orderNotReady)."""
        remaining = await self._relinquish_lost(caller, order)
        if remaining is not order:
            self._metrics.count_order("invalid", order.profile_key)
            transitions.require_ready(remaining, now=self._clock())
        return remaining

    async def _relinquish_lost(self, caller: Caller, order: ACMEOrder) -> ACMEOrder:
        """The same order, or the ended one if it reuses authorizations that are lost."""
        lost = await self._authorization_reuse.find_lost(order, caller) if order.spec.authorized else {}
        if not lost:
            return order
        return await self._orders.change(order, partial(transitions.relinquished, lost=lost, now=self._clock()))

    async def check_account(self, caller: Caller) -> None:
        """Raise Refused if the account was stopped, deactivated or changed its key since the request was signed."""
        current = await self.active_account(caller.profile, *key_of(caller.account))
        if current.thumbprint != caller.account.thumbprint:
            raise AccountNotValid("The account has changed its key.")

    async def active_account(self, profile: Profile, namespace: str, name: str) -> ACMEAccount:
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

        def read() -> Awaitable[ACMEAccount | None]:
            return self._accounts.read_live(caller.profile.namespace, account_name(*caller.profile.key, key))

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
