"""What is expected of a returned certificate, and why one is rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from kms.pki.csr import CertificateRequest
from kms.pki.names import Name
from kms.pki.policy import Policy

SKEW: Final = timedelta(minutes=5)
"""How far the clock of the CA may differ."""

Rule: TypeAlias = Literal[
    "Unreadable",
    "KeyMismatch",
    "NameMismatch",
    "SubjectMismatch",
    "NotAnEndEntity",
    "UsageMismatch",
    "UnknownCriticalExtension",
    "WeakSignature",
    "InvalidSerialNumber",
    "InvalidDates",
    "InvalidChain",
    "OutlivesAuthority",
]
"""What a returned certificate violates."""


class Rejected(ValueError):
    """A returned certificate that must not be used: the rule, and a sentence for administrators, not for clients.

    `ends` is set with the rule OutlivesAuthority: when the first certificate above it ends.
    """

    def __init__(self, rule: Rule, message: str, *, ends: datetime | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        self.ends = ends


@dataclass(frozen=True, slots=True)
class Expected:
    """What was asked for, by the request itself and by order, profile and policy.

    `names` are those of the order; `usages` and `subject` those of the profile. `duration` was asked of the CA.
    `accepted` is when the order took the request.
    """

    request: CertificateRequest
    names: frozenset[Name]
    usages: frozenset[str]
    subject: Mapping[str, tuple[str, ...]]
    policy: Policy
    duration: timedelta
    accepted: datetime
