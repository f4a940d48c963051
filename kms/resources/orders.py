"""ACMEOrder: an order of an ACME account with its authorizations and challenges (RFC 8555, 7.1.3 to 7.1.5).

`spec` holds what never changes, `status` the state machine. Written by the server alone. An order that has just been
created has no authorizations in its status yet; `opened` says what they are.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from kms.resources.meta import GROUP, Condition, LocalRef, ObjectMeta, Struct

ACCOUNT = f"{GROUP}/account"
"""On an ACMEOrder: the name of its account, so that an account's orders can be listed (M54)."""

OrderState = Literal["pending", "ready", "processing", "valid", "invalid"]
AuthorizationState = Literal["pending", "valid", "invalid", "deactivated", "expired", "revoked"]
ChallengeState = Literal["pending", "processing", "valid", "invalid"]
ChallengeType = Literal["http-01", "dns-01", "tls-alpn-01"]


class Identifier(Struct, frozen=True, kw_only=True):
    """What a certificate is for (RFC 8555, 9.7.7); a wildcard keeps its `*.` here."""

    type: Literal["dns", "ip"]
    value: str


class Token(Struct, frozen=True, kw_only=True):
    """The token of one challenge. `authorization` is the position of its identifier in the order."""

    authorization: int
    type: ChallengeType
    token: str


class StoredProblem(Struct, frozen=True, kw_only=True):
    """What went wrong, as a problem document says it; `type` is the last part of the URN (`unauthorized`)."""

    type: str
    detail: str
    subproblems: tuple[StoredSubProblem, ...] = ()


class StoredSubProblem(Struct, frozen=True, kw_only=True):
    """What went wrong with one identifier (RFC 8555, 6.7.1)."""

    type: str
    detail: str
    identifier: Identifier | None = None


class Challenge(Struct, frozen=True, kw_only=True):
    """One way to prove control. `attempt` names the replica that validates and when it began; it settles nothing.

    `caa_checked_at` is when the CAA records were looked at on that occasion; None: they were not.
    """

    type: ChallengeType
    state: ChallengeState = "pending"
    validated: datetime | None = None
    caa_checked_at: datetime | None = msgspec.field(default=None, name="caaCheckedAt")
    error: StoredProblem | None = None
    started: datetime | None = None
    attempt: str | None = None


class Authorization(Struct, frozen=True, kw_only=True):
    """The account's proof for one identifier; `identifier` is the base name where `wildcard` is set."""

    identifier: Identifier
    state: AuthorizationState = "pending"
    expires: datetime
    wildcard: bool = False
    challenges: tuple[Challenge, ...] = ()


class Revocation(Struct, frozen=True, kw_only=True):
    """When and why the certificate was revoked (RFC 5280, 5.3.1)."""

    time: datetime
    reason: str


class OrderSpec(Struct, frozen=True, kw_only=True):
    """What the client asked for and what was drawn for it. Immutable."""

    account_ref: LocalRef
    profile_ref: LocalRef
    identifiers: tuple[Identifier, ...]
    expires: datetime
    not_before: datetime | None = None
    not_after: datetime | None = None
    replaces: str | None = None
    profile: str | None = None
    tokens: tuple[Token, ...] = ()


class OrderStatus(Struct, frozen=True, kw_only=True):
    """The state machine. `request` (CSR, DER) and `accepted` are kept only while an order is processing.

    What is told of the certificate is in hexadecimal: its serial number, the key identifier of the CA that signed it,
    and the SHA-256 digest of its SubjectPublicKeyInfo.
    """

    state: OrderState = "pending"
    authorizations: tuple[Authorization, ...] = ()
    csr_digest: str | None = None
    request: bytes | None = None
    accepted: datetime | None = None
    certificate: str | None = None
    serial_number: str | None = None
    authority_key_id: str | None = msgspec.field(default=None, name="authorityKeyID")
    public_key_digest: str | None = None
    issued_at: datetime | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    revocation: Revocation | None = None
    error: StoredProblem | None = None
    conditions: tuple[Condition, ...] = ()


class ACMEOrder(Struct, frozen=True, kw_only=True):
    """`acmeord`: an ACME order."""

    metadata: ObjectMeta
    spec: OrderSpec
    status: OrderStatus = OrderStatus()


def authorization_of(spec: OrderSpec, position: int) -> Authorization:
    """The pending authorization for the identifier at `position`, with the challenges that tokens were drawn for."""
    identifier = spec.identifiers[position]
    wildcard = identifier.type == "dns" and identifier.value.startswith("*.")
    base = msgspec.structs.replace(identifier, value=identifier.value.removeprefix("*.")) if wildcard else identifier
    challenges = tuple(Challenge(type=each.type) for each in spec.tokens if each.authorization == position)
    return Authorization(identifier=base, expires=spec.expires, wildcard=wildcard, challenges=challenges)


def opened(order: ACMEOrder) -> ACMEOrder:
    """The order with its authorizations in place: what a missing status stands for."""
    if order.status.authorizations:
        return order
    authorizations = tuple(authorization_of(order.spec, position) for position in range(len(order.spec.identifiers)))
    return msgspec.structs.replace(order, status=msgspec.structs.replace(order.status, authorizations=authorizations))
