"""The typed keys under which handlers find the services in their application."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from acme_server.accounts.new_account import NewAccounts
from acme_server.accounts.service import Accounts
from acme_server.api.authentication import Authenticator
from acme_server.api.pages import Pages
from acme_server.audit.stream import AuditStream
from acme_server.certificates.crl import CRLs
from acme_server.certificates.renewal_info import Renewals
from acme_server.certificates.revocation import Revocations
from acme_server.certificates.serving_authority import ServingAuthority
from acme_server.metrics import Metrics
from acme_server.nonces import Nonces
from acme_server.orders.service import Orders
from acme_server.profiles import Profiles
from acme_server.state.certificate_chains import CertificateChains
from acme_server.urls import URLs

URLS = web.AppKey("urls", URLs)
NONCES = web.AppKey("nonces", Nonces)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
NEW_ACCOUNTS = web.AppKey("new_accounts", NewAccounts)
ACCOUNTS = web.AppKey("accounts", Accounts)
ORDERS = web.AppKey("orders", Orders)
CHAINS = web.AppKey("chains", CertificateChains)
RENEWALS = web.AppKey("renewals", Renewals)
PROFILES = web.AppKey("profiles", Profiles)
REVOCATIONS = web.AppKey("revocations", Revocations)
AUDIT = web.AppKey("audit", AuditStream)
ON_REFUSED: web.AppKey[tuple[Callable[..., None], ...]] = web.AppKey("on_refused")
"""Called with each signed request that the server refuses."""
PAGES = web.AppKey("pages", Pages)
METRICS = web.AppKey("metrics", Metrics)
CRLS = web.AppKey("crls", CRLs)
SERVING_AUTHORITY = web.AppKey("serving_authority", ServingAuthority)
