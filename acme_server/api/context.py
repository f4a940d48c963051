"""What handlers answer requests with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from acme_server.accounts.new_account import NewAccounts
from acme_server.accounts.service import Accounts
from acme_server.api.authentication import Authenticator
from acme_server.api.pages import Pages
from acme_server.api.readiness import Readiness
from acme_server.audit.stream import AuditStream
from acme_server.certificates.crl import CRLs
from acme_server.certificates.renewal_info import Renewals
from acme_server.certificates.revocation import Revocations
from acme_server.certificates.serving_authority import ServingAuthority
from acme_server.metrics import Metrics
from acme_server.nonces import Nonces
from acme_server.orders.service import Orders
from acme_server.profiles import Profiles
from acme_server.replicas import Replicas
from acme_server.state.certificate_chains import CertificateChains
from acme_server.urls import URLs
from acme_server.wiring import Services
from kms.clock import system_clock


@dataclass(frozen=True, slots=True)
class Context:
    """The services and the rest of what handlers need. `on_refused` is called with each signed request refused."""

    urls: URLs
    nonces: Nonces
    authenticator: Authenticator
    new_accounts: NewAccounts
    accounts: Accounts
    orders: Orders
    chains: CertificateChains
    renewals: Renewals
    profiles: Profiles
    revocations: Revocations
    crls: CRLs
    serving_authority: ServingAuthority
    pages: Pages
    audit: AuditStream
    metrics: Metrics
    readiness: Readiness
    on_refused: tuple[Callable[..., None], ...]

    @classmethod
    def build(
        cls,
        *,
        urls: URLs,
        nonces: Nonces,
        replicas: Replicas,
        services: Services,
        metrics: Metrics,
        readiness: Readiness,
        audit: AuditStream,
        list_profiles: bool = False,
        body_deadline: float = 10.0,
    ) -> Context:
        """What handlers need, from `services`.

        A client may take `body_deadline` seconds to send a body. With `list_profiles`, everybody can read at `/` which
        profiles there are.
        """
        refused = services.notifications.refused.on_refused if services.notifications is not None else None
        return cls(
            urls=urls,
            nonces=nonces,
            authenticator=Authenticator(
                profiles=services.profiles,
                accounts=services.accounts,
                nonces=nonces,
                replicas=replicas,
                urls=urls,
                body_deadline=body_deadline,
            ),
            new_accounts=NewAccounts(
                accounts=services.accounts,
                credentials=services.credentials,
                on_wrong_secret=services.notices.on_wrong_secret,
            ),
            accounts=services.accounts,
            orders=services.orders,
            chains=services.state.chains,
            renewals=services.renewals,
            profiles=services.profiles,
            revocations=services.revocations,
            crls=services.crls,
            serving_authority=services.serving_authority,
            pages=Pages(
                profiles=services.profiles,
                serving_authority=services.serving_authority,
                worker=services.worker,
                urls=urls,
                clock=system_clock,
                list_profiles=list_profiles,
            ),
            audit=audit,
            metrics=metrics,
            readiness=readiness,
            on_refused=(services.notices.on_refused, *([refused] if refused is not None else [])),
        )
