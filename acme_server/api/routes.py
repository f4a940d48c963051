"""All routes of the ACME server. Those called most come first, as the router looks from top to bottom."""

from __future__ import annotations

from acme_server.api import (
    account,
    authorization,
    certificate,
    challenge,
    directory,
    health,
    nonce,
    order,
    publication,
    renewal,
    revocation,
    root,
)

ROUTES = (
    *order.ROUTES,
    *authorization.ROUTES,
    *challenge.ROUTES,
    *certificate.ROUTES,
    *nonce.ROUTES,
    *account.ROUTES,
    *directory.ROUTES,
    *renewal.ROUTES,
    *publication.ROUTES,
    *revocation.ROUTES,
    *root.ROUTES,
    *health.ROUTES,
)

PLAIN_ROUTES = publication.ROUTES
"""All that is served without TLS (M2)."""
