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
    renewal,
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
    *root.ROUTES,
    *health.ROUTES,
)
