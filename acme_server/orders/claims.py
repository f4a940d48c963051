"""Which process asks a CA whose requests have no name: asking twice would give two certificates. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from kms.resources.orders import AuthorityType, Claim, Issuance

CLAIMED: Final[frozenset[AuthorityType]] = frozenset({"Vault"})
"""The types of these CAs."""


def claim_of(process: str, type_: AuthorityType, *, now: datetime) -> Claim | None:
    """The claim of this process; None: requests to CAs of that type have names."""
    return Claim(replica=process, time=now) if type_ in CLAIMED else None


def has_claim(process: str, issuance: Issuance) -> bool:
    """Whether this process is the one that asks."""
    return issuance.claim is not None and issuance.claim.replica == process


def is_from_before(process: str, issuance: Issuance) -> bool:
    """Whether an earlier run of this process has asked: it is certainly dead. A process is `<replica>/<run>`."""
    if issuance.claim is None or has_claim(process, issuance):
        return False
    return issuance.claim.replica.rpartition("/")[0] == process.rpartition("/")[0]


def remaining_claim(process: str, issuance: Issuance, *, lasts: timedelta, now: datetime) -> timedelta:
    """How long another process still has the claim; zero or less: this one may take it."""
    if issuance.claim is None or is_from_before(process, issuance):
        return timedelta(0)
    begins = max(issuance.claim.time, issuance.not_before or issuance.claim.time)
    return begins + lasts - now
