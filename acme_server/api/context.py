"""What handlers reach through their application, by typed key, and what they expect of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from aiohttp import web

from acme_server.accounts.new_account import NewAccounts
from acme_server.api.authentication import AccountHolder, Authenticator, KeyHolder
from acme_server.api.payloads import AccountUpdate, NewAuthorization, NewOrder
from acme_server.certificates.crl import Document
from acme_server.certificates.renewal_info import RenewalInfo
from acme_server.jose.jwk import AccountKey
from acme_server.metrics import Metrics
from acme_server.nonces import Nonces
from acme_server.profiles import Profile
from acme_server.urls import URLs
from kms.resources import ACMEAccount, ACMEOrder, CertificateAuthority


class AccountService(Protocol):
    """What accounts may do with themselves (acme_server.accounts.service)."""

    async def current(self, account: ACMEAccount) -> ACMEAccount:
        """The account as it is now."""
        ...

    async def update(self, account: ACMEAccount, update: AccountUpdate) -> ACMEAccount:
        """Change contacts, or deactivate."""
        ...

    async def change_key(self, profile: Profile, account: ACMEAccount, key: AccountKey, *, old: str) -> ACMEAccount:
        """The account with the key in the place of the one with the thumbprint `old`; raises KeyInUse."""
        ...


class OrderService(Protocol):
    """What accounts may do with their orders (acme_server.orders.service). Raises Refused and Unavailable."""

    async def create(self, profile: Profile, account: ACMEAccount, wanted: NewOrder) -> ACMEOrder:
        """A new order."""
        ...

    async def get(self, profile: Profile, account: ACMEAccount, order_id: str, *, fresh: bool = False) -> ACMEOrder:
        """The account's order; not_found for any other."""
        ...

    async def preauthorize(self, profile: Profile, account: ACMEAccount, wanted: NewAuthorization) -> ACMEOrder:
        """A new authorization, in an order that is none."""
        ...

    async def holding(self, profile: Profile, account: ACMEAccount, order_id: str, position: int) -> ACMEOrder:
        """What holds the account's authorization; not_found for any other."""
        ...

    async def settled(self, order: ACMEOrder, *, position: int | None = None) -> ACMEOrder:
        """The order once nothing is in flight for it (for one authorization: if that is answered), or after 2 s."""
        ...

    async def respond(self, order: ACMEOrder, position: int, type_: str) -> ACMEOrder:
        """The order with the validation of that challenge begun."""
        ...

    async def deactivate_authorization(self, order: ACMEOrder, position: int) -> ACMEOrder:
        """The order without that authorization."""
        ...

    async def finalize(self, profile: Profile, account: ACMEAccount, order: ACMEOrder, csr_der: bytes) -> ACMEOrder:
        """The order with its certificate, or on the way to it."""
        ...

    async def page_of(self, account: ACMEAccount, cursor: str = "") -> tuple[Sequence[str], str]:
        """Some of the account's orders, and where the list goes on; "": nowhere."""
        ...


class RenewalService(Protocol):
    """Says when certificates should be renewed. Raises Refused and Unavailable."""

    def info(self, profile: Profile, certificate_id: str) -> RenewalInfo:
        """What is suggested for the certificate."""
        ...


class ProfileService(Protocol):
    """What directories offer (acme_server.profiles)."""

    def order_profiles(self, profile: Profile) -> Mapping[str, str]:
        """The order profiles that work, each with a text for people."""
        ...

    def authority(self, profile: Profile, order: ACMEOrder) -> CertificateAuthority:
        """The CA that signs for orders like this one."""
        ...


class RevocationService(Protocol):
    """Who may revoke which certificates (acme_server.certificates.revocation). Raises Refused and Unavailable."""

    async def revoke(self, caller: AccountHolder | KeyHolder, der: bytes, reason: int | None) -> None:
        """Revoke that certificate."""
        ...


class PublicationService(Protocol):
    """What CAs publish (acme_server.certificates.crl). Raises Refused and Unavailable."""

    async def revocation_list(self, namespace: str, authority: str) -> Document:
        """The list of what the CA has revoked."""
        ...

    def certificate(self, namespace: str, authority: str) -> Document:
        """The certificate of the CA."""
        ...


class Readiness(Protocol):
    """Whether this process can serve."""

    @property
    def shutting_down(self) -> bool:
        """Whether it is to end, and finishes only what was begun."""
        ...

    def missing(self) -> Sequence[str]:
        """What it still waits for, in words; empty: it is ready."""
        ...


URLS = web.AppKey("urls", URLs)
NONCES = web.AppKey("nonces", Nonces)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
NEW_ACCOUNTS = web.AppKey("enrollment", NewAccounts)
ACCOUNTS = web.AppKey("accounts", AccountService)
ORDERS = web.AppKey("orders", OrderService)
RENEWALS = web.AppKey("renewals", RenewalService)
PROFILES = web.AppKey("profiles", ProfileService)
REVOCATION = web.AppKey("revocation", RevocationService)
PUBLICATION = web.AppKey("publication", PublicationService)
METRICS = web.AppKey("metrics", Metrics)
READINESS = web.AppKey("readiness", Readiness)
