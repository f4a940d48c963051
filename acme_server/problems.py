"""What went wrong, said once. Services raise `Refused` or `Unavailable`; only the edge makes problem documents of them.

    ACMEError
    ├── Refused       the request must not be granted; the sender is told why (4xx, a registered type)
    └── Unavailable   we cannot answer now; the sender should come again (503 with Retry-After)

cert-manager takes any 4xx as final, so whatever may be better in a minute is Unavailable, never Refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from kms.resources.orders import Identifier

URN = "urn:ietf:params:acme:error:"


class ProblemType(StrEnum):
    """The registered error types (RFC 8555, 6.7) that this server sends."""

    ACCOUNT_DOES_NOT_EXIST = "accountDoesNotExist"
    ALREADY_REPLACED = "alreadyReplaced"
    ALREADY_REVOKED = "alreadyRevoked"
    BAD_CSR = "badCSR"
    BAD_NONCE = "badNonce"
    BAD_PUBLIC_KEY = "badPublicKey"
    BAD_REVOCATION_REASON = "badRevocationReason"
    BAD_SIGNATURE_ALGORITHM = "badSignatureAlgorithm"
    CAA = "caa"
    CONNECTION = "connection"
    DNS = "dns"
    EXTERNAL_ACCOUNT_REQUIRED = "externalAccountRequired"
    INCORRECT_RESPONSE = "incorrectResponse"
    INVALID_CONTACT = "invalidContact"
    INVALID_PROFILE = "invalidProfile"
    MALFORMED = "malformed"
    ORDER_NOT_READY = "orderNotReady"
    RATE_LIMITED = "rateLimited"
    REJECTED_IDENTIFIER = "rejectedIdentifier"
    SERVER_INTERNAL = "serverInternal"
    TLS = "tls"
    UNAUTHORIZED = "unauthorized"
    UNSUPPORTED_CONTACT = "unsupportedContact"
    UNSUPPORTED_IDENTIFIER = "unsupportedIdentifier"
    USER_ACTION_REQUIRED = "userActionRequired"


STATUSES: Mapping[ProblemType, int] = MappingProxyType(
    {
        ProblemType.ALREADY_REPLACED: 409,
        ProblemType.CAA: 403,
        ProblemType.UNAUTHORIZED: 403,
        ProblemType.ORDER_NOT_READY: 403,
        ProblemType.REJECTED_IDENTIFIER: 403,
        ProblemType.EXTERNAL_ACCOUNT_REQUIRED: 403,
        ProblemType.USER_ACTION_REQUIRED: 403,
        ProblemType.RATE_LIMITED: 429,
        ProblemType.SERVER_INTERNAL: 500,
    }
)
"""HTTP status by type; 400 where none is named."""


@dataclass(frozen=True, slots=True)
class SubProblem:
    """What is wrong with one identifier (RFC 8555, 6.7.1)."""

    type: ProblemType
    detail: str
    identifier: Identifier | None = None


class ACMEError(Exception):
    """Base of what the edge turns into a problem document."""


@dataclass(eq=False)
class Refused(ACMEError):
    """A request that must not be granted, and what its sender should know.

    `status` overrides the status that goes with the type, `headers` are added to the answer (Location, Link), and
    `members` to the document (`algorithms` of badSignatureAlgorithm, `instance` of userActionRequired).
    """

    type: ProblemType
    detail: str
    subproblems: tuple[SubProblem, ...] = ()
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The type and the detail, as a log line wants them."""
        return f"{self.type}: {self.detail}"

    @property
    def http_status(self) -> int:
        """The status of the answer."""
        return self.status or STATUSES.get(self.type, 400)


@dataclass(eq=False)
class Unavailable(ACMEError):
    """We cannot answer now. `detail` is for people, `retry_after` in seconds for programs."""

    detail: str
    retry_after: int = 2

    def __str__(self) -> str:
        """The detail."""
        return self.detail


def not_found() -> Refused:
    """The one answer for objects that do not exist and for those that the account must not see."""
    return Refused(ProblemType.MALFORMED, "There is no such resource for this account.", status=404)
