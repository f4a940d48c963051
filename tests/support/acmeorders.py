"""ACMEOrders with their authorizations, for tests without a cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from acme_server.model import ChallengeId, Valid
from acme_server.orders import transitions
from kms.issuers import Issued
from kms.resources.meta import LocalRef, ObjectMeta
from kms.resources.orders import ACMEOrder, Identifier, OrderSpec, Token, with_authorizations

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
LIFETIME = timedelta(hours=24)
DIGEST = "d" * 64
OTHER_DIGEST = "e" * 64


def order(*names: str, created: datetime = NOW, lifetime: timedelta = LIFETIME) -> ACMEOrder:
    """A pending order for DNS names."""
    chosen = names or ("www.example.com",)
    return with_authorizations(
        ACMEOrder(
            metadata=ObjectMeta(
                namespace="pki",
                name="orderorderorderorderorderorder22",
                uid="order-uid",
                resource_version="1",
                creation_timestamp=created,
            ),
            spec=OrderSpec(
                account_ref=LocalRef(name="account"),
                profile_ref=LocalRef(name="web"),
                identifiers=tuple(Identifier(type="dns", value=name) for name in chosen),
                expires=created + lifetime,
                tokens=tuple(
                    Token(authorization=position, type="http-01", token=f"token-{position}")
                    for position in range(len(chosen))
                ),
            ),
        )
    )


def proven(order: ACMEOrder, *positions: int, at: datetime = NOW) -> ACMEOrder:
    """The order after http-01 validation of the names at these positions; without positions, of all names."""
    chosen = positions or range(len(order.spec.identifiers))
    outcomes = {ChallengeId(position, "http-01"): Valid(at) for position in chosen}
    return transitions.validated(order, outcomes, lifetime=LIFETIME, now=at)


def issued(serial: str = "1234") -> Issued:
    """A placeholder for an issued certificate."""
    return Issued(
        chain=f"-----BEGIN CERTIFICATE-----\n{serial}\n-----END CERTIFICATE-----\n",
        serial_number=serial,
        authority_key_id="ab" * 20,
        public_key_digest="cd" * 32,
        not_before=NOW,
        not_after=NOW + timedelta(days=30),
    )


def certified() -> ACMEOrder:
    """A valid order with its certificate."""
    return transitions.issued(proven(order()), DIGEST, issued(), now=NOW)
