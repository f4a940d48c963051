"""All routes of the ACME server. Those called most come first, as the router looks from top to bottom."""

from __future__ import annotations

from acme_server.api import (
    account,
    authorization,
    certificate,
    challenge,
    crl,
    directory,
    health,
    landing,
    nonce,
    order,
    renewal_info,
    revocation,
)

ROUTES = (
    *order.ROUTES,
    *authorization.ROUTES,
    *challenge.ROUTES,
    *certificate.ROUTES,
    *nonce.ROUTES,
    *account.ROUTES,
    *directory.ROUTES,
    *renewal_info.ROUTES,
    *crl.ROUTES,
    *revocation.ROUTES,
    *landing.ROUTES,
    *health.ROUTES,
)

PLAIN_ROUTES = crl.ROUTES
"""All that is served without TLS."""
