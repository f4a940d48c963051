"""Rules for the subject of certificate requests that have no effect, and those that no request can satisfy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kms.pki.pattern_overlap import Effort, PatternIndex
from kms.pki.quoting import quoted
from kms.pki.subject_policy import AttributeRules, SubjectRules, has_control_characters
from kms.pki.subjects import COMMON_NAME, LIMITS, check_value


def subject_without_effect(subject: SubjectRules, effort: Effort) -> Iterator[str]:
    """Patterns that certify no value."""
    for attribute, rules in subject.attributes.items():
        field = f"spec.subject.{attribute}"
        denied = PatternIndex(rules.rules.denied, effort)
        for each in rules.rules.allowed:
            if flaw := _flaw(attribute, each):
                yield f"{field}.allowed: {quoted(each)} matches no value that can be certified: {flaw}"
            elif (cover := denied.find_cover(each)) is not None:
                yield f'{field}.allowed: "{each}" is denied by "{cover}" ({field}.denied)'


def subject_contradictions(subject: SubjectRules, names: Sequence[str] | None, effort: Effort) -> Iterator[str]:
    """Rules that no request can satisfy.

    A common name is one of the names of its certificate: `names` are the patterns of these. None: they are not known.
    """
    for attribute, rules in subject.attributes.items():
        field = f"spec.subject.{attribute}"
        found = list(_against_required(attribute, field, rules, effort))
        yield from found
        if found:
            continue
        if attribute == COMMON_NAME:
            yield from _against_one_value(field, rules, effort)
            yield from _against_names(field, rules, names, effort)


def _against_required(attribute: str, field: str, rules: AttributeRules, effort: Effort) -> Iterator[str]:
    usable = _usable(attribute, rules, effort)
    if rules.word == "Require" and not usable:
        yield f"{field}.requested: a value is required, and none is allowed"
    allowed, denied = PatternIndex(usable, effort), PatternIndex(rules.rules.denied, effort)
    for each in rules.rules.required:
        if flaw := _flaw(attribute, each):
            yield f"{field}.required: {quoted(each)} is required and matches no value that can be certified: {flaw}"
        elif not allowed.find_overlapping(each) or denied.find_cover(each) is not None:
            yield f'{field}.required: "{each}" is required and not allowed'


def _against_one_value(field: str, rules: AttributeRules, effort: Effort) -> Iterator[str]:
    """A certificate request has one common name at most."""
    required = list(rules.rules.required)
    for position, each in enumerate(required):
        index = PatternIndex((each,), effort)
        if other := next((other for other in required[position + 1 :] if not index.find_overlapping(other)), None):
            yield f'{field}.required: "{each}" and "{other}" are required, and no common name matches both'
            return


def _against_names(field: str, rules: AttributeRules, names: Sequence[str] | None, effort: Effort) -> Iterator[str]:
    if names is None:
        return
    index = PatternIndex(names, effort)
    for each in rules.rules.required:
        if not index.find_overlapping(each):
            yield f'{field}.required: "{each}" is required and matches no name that is allowed'
    usable = _usable(COMMON_NAME, rules, effort)
    if rules.word == "Require" and not any(index.find_overlapping(each) for each in usable):
        yield f"{field}.requested: a common name is required, and none that is allowed is an allowed name"


def _usable(attribute: str, rules: AttributeRules, effort: Effort) -> list[str]:
    """The patterns of allowed values that are not without effect."""
    denied = PatternIndex(rules.rules.denied, effort)
    return [each for each in rules.rules.allowed if _flaw(attribute, each) is None and denied.find_cover(each) is None]


def _flaw(attribute: str, pattern: str) -> str | None:
    """Why no value that the pattern matches can be certified; None if one may."""
    literal = pattern.replace("*", "")
    if has_control_characters(literal):
        return "it has control characters"
    if not pattern.strip():
        return "it is blank"
    if "*" in pattern and len(literal) <= LIMITS[attribute]:
        return None
    try:
        check_value(attribute, literal)
    except ValueError as error:
        return str(error)
    return None
