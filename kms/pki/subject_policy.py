"""The subject of a certificate request: what a policy certifies of it, refuses, or leaves out.

ACME is about identifiers (RFC 8555, 7.4), and clients put into the subject what their user never chose. So an attribute
without rules is left out of the certificate, and the request is not refused.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from kms.pki.csr import CertificateRequest
from kms.pki.names import Name
from kms.pki.pattern_sets import Value
from kms.pki.quoting import quoted
from kms.pki.rules import Rules
from kms.pki.subjects import COMMON_NAME, LIMITS, check_value

_EARLY_COMPARISONS = 20_000
"""Comparisons of two texts, about 2 ms."""

_SEPARATORS = frozenset({"Zl", "Zp"})
"""Unicode's categories of the line and the paragraph separator, which break lines as control characters do."""

Word: TypeAlias = Literal["Allow", "Require", "Deny", "LeaveOut"]


@dataclass(frozen=True, slots=True)
class AttributeRules:
    """The rules of one attribute. `rules.allowed` are the values that are certified.

    `word` decides about other values: LeaveOut certifies the request without them, otherwise the request is refused.
    Require asks for at least one value. None is Deny, in other words for messages.
    """

    rules: Rules
    word: Word | None = None


@dataclass(frozen=True, slots=True)
class SubjectRules:
    """The rules by attribute (`commonName`, `organizations`, ...), and what happens to attributes without rules."""

    attributes: Mapping[str, AttributeRules] = field(default_factory=dict)
    others: Literal["Deny", "LeaveOut"] = "LeaveOut"


class GrantedSubject(NamedTuple):
    """What a policy certifies of a requested subject."""

    common_name: str | None
    attributes: Mapping[str, tuple[str, ...]]


def subject_violations(request: CertificateRequest, subject: SubjectRules, policy: str) -> Iterator[str]:
    """How the subject of the request violates the rules; `policy` is `namespace/name`, for messages.

    A common name that is certified must be one of the names, and a value must have room in a certificate.
    """
    asked = _asked(request)
    for attribute, values in asked.items():
        rules = subject.attributes.get(attribute)
        for value in values:
            if rules is not None:
                objection = _against_value(attribute, value, request.names, rules, policy)
            elif subject.others == "Deny":
                objection = _without_rules(attribute, value, policy)
            else:
                continue
            if objection:
                yield objection
    for attribute, rules in subject.attributes.items():
        yield from _missing(attribute, asked.get(attribute, ()), request, rules, policy)


def _missing(
    attribute: str, values: Sequence[str], request: CertificateRequest, rules: AttributeRules, policy: str
) -> Iterator[str]:
    """What is required and not requested. A value that is left out of the certificate meets no requirement."""
    if rules.word == "Require" and not values:
        yield f"a subject with {attribute} is required by policy {policy} (spec.subject.{attribute}.requested)"
    required = rules.rules.required
    certified = [each for each in values if _is_certified(attribute, each, request, rules)] if len(required) else []
    met = {found for value in certified for found in required.find_all(Value.of(value))}
    for pattern in required:
        if pattern not in met:
            yield (
                f'a subject with {attribute} matching "{pattern}" is required by policy {policy}'
                f" (spec.subject.{attribute}.required)"
            )


def common_name_violations(names: Sequence[Name], subject: SubjectRules, policy: str) -> Iterator[str]:
    """Why no request for these names can have a common name that the rules require.

    For an order, before there is a request. Rules that are costly to compare with all names are not asked: they are
    when the request comes.
    """
    rules = subject.attributes.get(COMMON_NAME)
    if rules is None or not (rules.word == "Require" or len(rules.rules.required)):
        return
    if len(names) * rules.rules.cost <= _EARLY_COMPARISONS and not any(
        len(name.value.encode()) <= LIMITS[COMMON_NAME]
        and rules.rules.allows(name.value)
        and len(set(rules.rules.required.find_all(Value.of(name.value)))) == len(rules.rules.required)
        for name in names
    ):
        yield (
            f"no name of the order can be the common name that policy {policy} requires (spec.subject.commonName):"
            f" it must match the patterns and have at most {LIMITS[COMMON_NAME]} characters"
        )


def granted_subject(request: CertificateRequest, subject: SubjectRules) -> GrantedSubject:
    """What the rules certify of the requested subject. Everything else is left out."""
    granted = {
        attribute: certified
        for attribute, values in _asked(request).items()
        if (rules := subject.attributes.get(attribute)) is not None
        and (certified := tuple(each for each in values if _is_certified(attribute, each, request, rules)))
    }
    common_names = granted.pop(COMMON_NAME, ())
    return GrantedSubject(next(iter(common_names), None), MappingProxyType(granted))


def unchanged_violation(
    attribute: str, value: str, names: Collection[Name], subject: SubjectRules, policy: str
) -> str | None:
    """Why a certificate for these names must not have the value, as a clause; None if it may.

    For requests from which nothing can be left out, and for certificates of other CAs.
    """
    rules = subject.attributes.get(attribute)
    if rules is None:
        return _without_rules(attribute, value, policy)
    strict = replace(rules, word=None) if rules.word == "LeaveOut" else rules
    return _against_value(attribute, value, names, strict, policy)


def _asked(request: CertificateRequest) -> Mapping[str, tuple[str, ...]]:
    """The requested values. A blank one asks for nothing, as an empty one does: it is left out."""
    common_names = () if request.common_name is None else (request.common_name,)
    asked = {COMMON_NAME: common_names, **request.subject}
    return {attribute: tuple(each for each in values if each.strip()) for attribute, values in asked.items()}


def _without_rules(attribute: str, value: str, policy: str) -> str:
    return (
        f"{attribute} {quoted(value)} in the subject is not allowed by policy {policy}: it has no rules for it"
        " (spec.subject.otherAttributes)"
    )


def _against_value(
    attribute: str, value: str, names: Collection[Name], rules: AttributeRules, policy: str
) -> str | None:
    asked, path = f"{attribute} {quoted(value)} in the subject", f"policy {policy} (spec.subject.{attribute}"
    if pattern := _denied_by(attribute, value, rules.rules):
        return f'{asked} is denied by {path}.denied): it matches "{pattern}"'
    if rules.word == "LeaveOut":
        return None
    if rules.rules.allowed.find(Value.of(value)) is None:
        return f"{asked} is not allowed by {path}.{'requested' if rules.word == 'Deny' else 'allowed'})"
    return _unfit(attribute, value, names)


def _is_certified(attribute: str, value: str, request: CertificateRequest, rules: AttributeRules) -> bool:
    return (
        _denied_by(attribute, value, rules.rules) is None
        and rules.rules.allowed.find(Value.of(value)) is not None
        and _unfit(attribute, value, request.names) is None
    )


def _unfit(attribute: str, value: str, names: Collection[Name]) -> str | None:
    """Why no certificate may have the value, whatever the policy says."""
    if attribute == COMMON_NAME and value not in {name.value for name in names}:
        return f"the common name {quoted(value)} is not one of the names of the certificate request"
    if not value.strip():
        return f"{attribute} {quoted(value)} in the subject is blank"
    if has_control_characters(value):
        return f"{attribute} {quoted(value)} in the subject has control characters"
    try:
        check_value(attribute, value)
    except ValueError as error:
        return f"{attribute} {quoted(value)} cannot be certified: {error}"
    return None


def has_control_characters(value: str) -> bool:
    """Whether the value has characters that break lines, change the direction of writing, or have no meaning."""
    categories = {unicodedata.category(each) for each in value}
    return not _SEPARATORS.isdisjoint(categories) or any(each.startswith("C") for each in categories)


def _denied_by(attribute: str, value: str, rules: Rules) -> str | None:
    """The pattern that denies the value, or one of the names for which a common name, a wildcard, stands."""
    found = rules.denied.find(Value.of(value))
    if found is not None or attribute != COMMON_NAME or not value.startswith("*."):
        return found
    return rules.denied.find_below(Value.of(value.removeprefix("*.")))
