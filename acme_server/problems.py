"""The errors of the domain. Services raise `Refused` or `Unavailable`; only api/problems.py turns them into HTTP.

    ACMEError
    ├── Refused               the request must not be granted; its sender learns why
    │   ├── NotFound, AccountDoesNotExist
    │   └── AccountNotValid
    └── Unavailable           the server cannot answer now; the client should try again

cert-manager treats every 4xx as final, so an error that may be gone in a minute is Unavailable, never Refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kms.resources.orders import Identifier


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


@dataclass(frozen=True, slots=True)
class SubProblem:
    """The error of one identifier (RFC 8555, 6.7.1)."""

    type: ProblemType
    detail: str
    identifier: Identifier | None = None


class ACMEError(Exception):
    """Base of all errors that become problem documents."""


@dataclass(eq=False)
class Refused(ACMEError):
    """A request that must not be granted, and what its sender should know.

    `retry_after` are the seconds after which the same request may be granted. `members` are further members of the
    problem document: `algorithms` of badSignatureAlgorithm, `instance` of userActionRequired.
    """

    type: ProblemType
    detail: str
    subproblems: tuple[SubProblem, ...] = ()
    retry_after: int | None = None
    members: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The type and the detail, for log lines."""
        return f"{self.type}: {self.detail}"


class NotFound(Refused):
    """The resource does not exist. Resources that the account must not see are refused in the same words."""

    def __init__(self, detail: str = "There is no such resource for this account.") -> None:
        super().__init__(ProblemType.MALFORMED, detail)


class AccountDoesNotExist(Refused):
    """The profile has no account with that URL or that key."""

    def __init__(self) -> None:
        super().__init__(ProblemType.ACCOUNT_DOES_NOT_EXIST, "There is no such account in this profile.")


class AccountNotValid(Refused):
    """The account is deactivated or revoked, or its key has changed: it may do nothing."""

    def __init__(self, detail: str = "The account is deactivated.") -> None:
        super().__init__(ProblemType.UNAUTHORIZED, detail)


@dataclass(eq=False)
class Unavailable(ACMEError):
    """The server cannot answer now. `detail` is for people, `retry_after` (in seconds) for programs."""

    detail: str
    retry_after: int = 2

    def __str__(self) -> str:
        """The detail."""
        return self.detail
