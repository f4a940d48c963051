"""Revocation reasons and the contents of CRLs. Pure: the time is an argument.

Replicas publish the same CRL without asking each other: its dates and its number follow from the hour and from the
revoked certificates. For the same reason its number never goes down, also after a restart: a later hour, a later
revocation and a revocation that the watch delivers late all raise it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from acme_server.problems import ProblemType, Refused
from acme_server.state.certificates import CertificateRecord
from acme_server.state.retention import AFTER_EXPIRY
from acme_server.state.revocation_records import RevokedCertificate
from kms.pki.crl import KEY_COMPROMISE, UNSPECIFIED, ListTemplate, encode_entry, sort_entries
from kms.resources.orders import Revocation

SUBSCRIBER_REASONS: Mapping[int, str] = MappingProxyType(
    {
        0: UNSPECIFIED,
        1: KEY_COMPROMISE,
        3: "affiliationChanged",
        4: "superseded",
        5: "cessationOfOperation",
    }
)
"""Reasons that the holder of a certificate can know. cACompromise (2) and aACompromise (10) are about other
certificates, certificateHold (6) and removeFromCRL (8) would undo a revocation, and only an issuer can give
privilegeWithdrawn (9)."""

ADMINISTRATOR_REASONS = (*SUBSCRIBER_REASONS.values(), "privilegeWithdrawn")

REFRESH = timedelta(hours=1)
"""How often a CRL is renewed without new revocations."""
LIFETIME = timedelta(hours=24)
"""How long a CRL is valid: far longer than REFRESH, so that an outage leaves clients a valid one."""
LISTED_FOR = AFTER_EXPIRY - REFRESH
"""How long a certificate stays on the list after its end: RFC 5280, 3.3 wants it on one list beyond that. It is
off the list before its order is deleted."""

_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
"""The last time of a revocation; a later one, written by hand, could not be converted to UTC."""
_NUMBERED = 24
"""Bits of a list's number that count its entries; the rest is its time in milliseconds."""


def subscriber_reason(code: int | None) -> str:
    """The reason of that code (RFC 5280, 5.3.1). Raises Refused (badRevocationReason) for those not allowed."""
    reason = SUBSCRIBER_REASONS.get(0 if code is None else code)
    if reason is None:
        allowed = ", ".join(f"{number} ({name})" for number, name in SUBSCRIBER_REASONS.items())
        raise Refused(ProblemType.BAD_REVOCATION_REASON, f"The reason {code} is not allowed; allowed are {allowed}.")
    return reason


def is_listed(not_after: datetime, *, at: datetime) -> bool:
    """Whether a revoked certificate with that end is on the list of that hour."""
    return at - LISTED_FOR <= not_after


def hour_of(now: datetime) -> datetime:
    """When the list that is current at `now` was due. Entries are removed on the hour, never in between."""
    return now - (now - datetime.min.replace(tzinfo=UTC)) % REFRESH


def list_template(
    revoked: Collection[CertificateRecord | RevokedCertificate], *, now: datetime, not_before: datetime | None = None
) -> ListTemplate:
    """The contents of a CA's list at `now`, given its revoked certificates; each may be there several times.

    `not_before` is the `thisUpdate` of the last list: it never goes back, whatever happens to the clock.

    `thisUpdate` is the hour, or the last revocation if that is later; never the future, even if a revocation was
    recorded by a clock that is fast. An entry whose reason was raised to keyCompromise counts twice, so that the number
    rises.
    """
    hour = hour_of(now)
    # No objects per entry: Python's garbage collector would have to visit a hundred thousand of them.
    listed: dict[str, Revocation] = {}
    for each in revoked:
        if each.revocation is None or not is_listed(each.not_after, at=hour):
            continue
        if each.serial_number not in listed or each.revocation.reason == KEY_COMPROMISE:
            listed[each.serial_number] = each.revocation
    newest = max((each.time for each in listed.values()), default=hour)
    this_update = max(hour, min(newest, now), not_before or hour).astimezone(UTC)
    entries = sort_entries(_entry(*each) for each in listed.items())
    raised = sum(each.reason == KEY_COMPROMISE for each in listed.values())
    return ListTemplate(
        entries=entries,
        number=(int(this_update.timestamp()) * 1000 << _NUMBERED) + len(entries) + raised,
        this_update=this_update,
        next_update=hour_of(this_update) + LIFETIME,
    )


def _entry(serial_number: str, revocation: Revocation) -> bytes:
    time = min(revocation.time, _LATEST).astimezone(UTC)
    return encode_entry(int(serial_number, 16), time, _listed_reason(revocation.reason))


def _listed_reason(reason: str) -> str:
    """The reason for the CRL. A reason that was written by hand must not break the whole CRL."""
    return reason if reason in ADMINISTRATOR_REASONS else UNSPECIFIED
