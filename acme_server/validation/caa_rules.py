"""The rules of CAA records (RFC 8659, RFC 8657): whether they allow a certificate. Pure.

The relevant set of a name is the records of the name itself or, where it has none, of the nearest name above it that
has some. There the owner of the name lists the CAs that may issue, the accounts and the validation methods. A record
that cannot be understood forbids.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kms.resources.orders import ACMEOrder, ChallengeType

FRESH = timedelta(hours=8)
"""How long a check is valid (Baseline Requirements, 3.2.2.8; RFC 8659 leaves it to the issuer)."""
SKEW = timedelta(minutes=5)
"""How far the clocks of servers may differ."""
MAXIMUM_LOOKUPS = 500
"""Lookups of one order: enough for 100 names of five labels that share nothing."""

_CRITICAL = 0x80
_ISSUE = b"issue"
_ISSUE_WILD = b"issuewild"
# The last two do not restrict TLS certificates (RFC 8659, 4.4; RFC 9495).
_KNOWN = frozenset({_ISSUE, _ISSUE_WILD, b"iodef", b"issuemail"})

_LABEL = r"[A-Za-z0-9](?:-*[A-Za-z0-9])*"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_TAG = re.compile(_LABEL)
_VALUE = re.compile(r"[\x21-\x3a\x3c-\x7e]*")
_METHODS = re.compile(rf"{_LABEL}(?:,{_LABEL})*")

_WHITE = " \t"
_MAXIMUM_VALUE = 4096
"""Characters of a value; longer ones are malformed. An account URL has two hundred."""


@dataclass(frozen=True, slots=True)
class Property:
    """A CAA record: the octet of flags, and tag and value unchanged."""

    flags: int
    tag: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Issuance:
    """The certificate to issue.

    `issuers` are the names of this CA in CAA records, `account` is the URL of the account, `method` the challenge that
    proved control; None: control was not proven by a challenge.
    """

    wildcard: bool
    issuers: Collection[str]
    account: str
    method: ChallengeType | None


@dataclass(frozen=True, slots=True)
class IssueValue:
    """The value of `issue` and `issuewild`: the CA that may issue, and the conditions."""

    issuer: str
    parameters: Mapping[str, str]


def issue_value(value: bytes) -> IssueValue | None:
    """Parse the value (RFC 8659, 4.2); None if it is malformed. An empty issuer allows no CA.

    Names and tags are converted to lowercase, values are not. A repeated parameter is malformed (RFC 8657, 3).
    """
    if len(value) > _MAXIMUM_VALUE or not value.isascii():
        return None
    before, _, after = value.decode("ascii").partition(";")
    issuer, rest = before.strip(_WHITE), after.strip(_WHITE)
    if issuer and not _DOMAIN.fullmatch(issuer):
        return None
    parameters: dict[str, str] = {}
    for parameter in rest.split(";") if rest else ():
        tag, equals, text = (each.strip(_WHITE) for each in parameter.partition("="))
        if not (equals and _TAG.fullmatch(tag) and _VALUE.fullmatch(text)) or tag.lower() in parameters:
            return None
        parameters[tag.lower()] = text
    return IssueValue(issuer.lower(), parameters)


def objection(properties: Sequence[Property], issuance: Issuance) -> str | None:
    """Why the relevant set forbids the certificate, as the end of a sentence that repeats none of it; None: it allows.

    For a wildcard `issuewild` counts if there is any, else `issue`; for every other name only `issue`.
    """
    tags = [each.tag.lower() for each in properties]
    if any(each.flags & _CRITICAL and tag not in _KNOWN for each, tag in zip(properties, tags, strict=True)):
        return "they have a critical property that is not known here"
    tag = _ISSUE_WILD if issuance.wildcard and _ISSUE_WILD in tags else _ISSUE
    values = [each.value for each, known in zip(properties, tags, strict=True) if known == tag]
    if not values:
        return None
    ours = [each for each in map(issue_value, values) if each is not None and each.issuer in issuance.issuers]
    if not ours:
        names = " or ".join(sorted(issuance.issuers))
        return f'no property "{tag.decode()}" that is well-formed names {names}'
    objections = [_condition(each, issuance) for each in ours]
    return None if None in objections else objections[0]


def _condition(value: IssueValue, issuance: Issuance) -> str | None:
    """The condition of a property for this CA that is not met."""
    account = value.parameters.get("accounturi")
    if account is not None and account != issuance.account:
        return "they allow this CA to other accounts only (accounturi)"
    methods = value.parameters.get("validationmethods")
    if methods is not None and not (_METHODS.fullmatch(methods) and issuance.method in methods.split(",")):
        return f"they do not allow {issuance.method or 'issuance without a challenge'} (validationmethods)"
    return None


def names_to_look_up(names: Iterable[str]) -> set[str]:
    """The DNS names and all names above them: the records of each may have to be looked up."""
    found: set[str] = set()
    for name in names:
        owner = name
        while owner and owner not in found:
            found.add(owner)
            _, _, owner = owner.partition(".")
    return found


def objection_to_extent(names: Iterable[str], *, maximum: int = MAXIMUM_LOOKUPS) -> str | None:
    """Why the records of these DNS names take too many lookups, as a sentence; None: they do not."""
    found: set[str] = set()
    for name in names:
        found |= names_to_look_up((name,))
        if len(found) > maximum:
            return (
                f"Checking the CAA records of these names takes more than {maximum} lookups, one for each name and each"
                " name above it; order fewer names, or names with fewer labels."
            )
    return None


def find_unchecked(order: ACMEOrder, *, now: datetime) -> tuple[int, ...]:
    """The positions of the identifiers whose records must be checked before a certificate is issued.

    They were not checked when control was proven, for example for an authorization that is reused, or too long ago.
    IP addresses have no CAA records.
    """
    return tuple(
        position
        for position, authorization in enumerate(order.status.authorizations)
        if authorization.identifier.type == "dns" and not _is_fresh(order, position, now=now)
    )


def _is_fresh(order: ACMEOrder, position: int, *, now: datetime) -> bool:
    checked = [
        each.caa_checked_at for each in order.status.authorizations[position].challenges if each.state == "valid"
    ]
    # A CSR was accepted only after all necessary checks.
    # A time that has not come is none of a check.
    return any(-SKEW <= now - each <= FRESH for each in (*checked, order.status.accepted) if each is not None)
