"""What CAA records say about a certificate (RFC 8659, RFC 8657). Pure: records in, a verdict out.

The records of a name are its relevant set: those of the name itself or, where it has none, of the nearest name above it
that has some. Whoever owns the name says there which CAs may certify it, for which accounts, proven by which challenge.
What cannot be understood forbids.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kms.resources.orders import ACMEOrder, ChallengeType

FRESH = timedelta(hours=8)
"""How long a check may be relied upon: RFC 8659 leaves it to the issuer, the Baseline Requirements (3.2.2.8) do not."""

_CRITICAL = 0x80
_ISSUE = b"issue"
_ISSUE_WILD = b"issuewild"
# Those that concern other things than a TLS certificate are understood, and restrict nothing (RFC 8659, 4.4; RFC 9495).
_KNOWN = frozenset({_ISSUE, _ISSUE_WILD, b"iodef", b"issuemail"})

_LABEL = r"[A-Za-z0-9](?:-*[A-Za-z0-9])*"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_TAG = re.compile(_LABEL)
_VALUE = re.compile(r"[\x21-\x3a\x3c-\x7e]*")
_METHODS = re.compile(rf"{_LABEL}(?:,{_LABEL})*")

_WHITE = " \t"
_MAXIMUM_VALUE = 4096
"""Characters of a value that is read at all: an account URL has two hundred."""


@dataclass(frozen=True, slots=True)
class Property:
    """A CAA record: the flags octet, and tag and value as they were sent."""

    flags: int
    tag: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Issuance:
    """What is about to be certified, and on what ground.

    `issuers` are the names by which records mean this CA, `account` is the URL of the account, `method` the challenge
    that has proven control; None: none has.
    """

    wildcard: bool
    issuers: Collection[str]
    account: str
    method: ChallengeType | None


@dataclass(frozen=True, slots=True)
class IssueValue:
    """The value of `issue` and `issuewild`: who may issue, and under which conditions."""

    issuer: str
    parameters: Mapping[str, str]


def issue_value(value: bytes) -> IssueValue | None:
    """Parse the value as RFC 8659, 4.2 has it; None where it is malformed. An empty issuer is nobody.

    Names and tags are in lowercase, values as they are. A parameter that comes twice is malformed (RFC 8657, 3).
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
    """Why the relevant set forbids the certificate, as the end of a sentence that repeats nothing of it; None: it may.

    For a wildcard `issuewild` counts if there is any, else `issue`; for every other name `issue` alone.
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
    """Which condition of a property that names this CA is not met."""
    account = value.parameters.get("accounturi")
    if account is not None and account != issuance.account:
        return "they allow this CA to other accounts only (accounturi)"
    methods = value.parameters.get("validationmethods")
    if methods is not None and not (_METHODS.fullmatch(methods) and issuance.method in methods.split(",")):
        return f"they do not allow {issuance.method or 'issuance without a challenge'} (validationmethods)"
    return None


def unchecked(order: ACMEOrder, *, now: datetime) -> tuple[int, ...]:
    """The positions of the identifiers whose records must be looked at before anything is issued.

    They were not looked at when control was proven, such as with a proof that was made for an earlier order, or too
    long ago. Addresses have no such records.
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
    # A CSR was accepted after whatever had to be checked then.
    return any(now - each <= FRESH for each in (*checked, order.status.accepted) if each is not None)
