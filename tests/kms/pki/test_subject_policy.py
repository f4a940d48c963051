"""What a policy certifies, refuses and leaves out of a requested subject."""

from __future__ import annotations

import pytest

from kms.pki.csr import CertificateRequest, parse_request
from kms.pki.names import dns_name
from kms.pki.pattern_sets import PatternSet
from kms.pki.patterns import value_pattern
from kms.pki.rules import Rules
from kms.pki.subject_policy import (
    AttributeRules,
    SubjectRules,
    Word,
    common_name_violations,
    granted_subject,
    subject_violations,
    unchanged_violation,
)
from tests.support import csrs
from tests.support.csrs import COMMON_NAME, EMAIL_ADDRESS, ORGANIZATION, UTF8, alternative_names, request, subject

WEB = "www.example.com"


def asked(*attributes: tuple[str, str]) -> CertificateRequest:
    """A request for WEB with these attributes."""
    name = subject(*((type_, UTF8, value.encode()) for type_, value in attributes))
    return parse_request(request(alternative_names(WEB), name=name))


def rules(
    *allowed: str, word: Word | None = None, denied: tuple[str, ...] = (), required: tuple[str, ...] = ()
) -> AttributeRules:
    sets = (PatternSet(map(value_pattern, each)) for each in (allowed, denied, required))
    return AttributeRules(Rules(*sets), word)


def decide(request: CertificateRequest, attribute: str, rules: AttributeRules) -> tuple[list[str], tuple[str, ...]]:
    """The violations, and the values of the attribute that are certified."""
    all_rules = SubjectRules({attribute: rules})
    granted = granted_subject(request, all_rules)
    found = (granted.common_name,) if granted.common_name else ()
    certified = found if attribute == "commonName" else granted.attributes.get(attribute, ())
    return list(subject_violations(request, all_rules, "pki/web")), certified


EXAMPLE = asked((ORGANIZATION, "Example"))
OTHER = asked((ORGANIZATION, "Internet Widgits Pty Ltd"))


@pytest.mark.parametrize("client", [csrs.crypt_le(), csrs.openssl()])
def test_what_has_no_rules_is_left_out(client: bytes) -> None:
    request = parse_request(client)
    assert len(request.subject) == 4
    assert list(subject_violations(request, SubjectRules(), "pki/web")) == []
    assert granted_subject(request, SubjectRules()) == (None, {})


def test_what_has_no_rules_is_refused_by_a_policy_that_denies_it() -> None:
    found = list(subject_violations(parse_request(csrs.openssl()), SubjectRules(others="Deny"), "pki/web"))
    assert len(found) == 5
    assert all("spec.subject.otherAttributes" in each for each in found)


@pytest.mark.parametrize(
    ("word", "example", "other", "none"),
    [
        (None, ("Example",), "allowed", ()),
        ("Allow", ("Example",), "allowed", ()),
        ("Require", ("Example",), "allowed", "requested"),
        ("LeaveOut", ("Example",), (), ()),
    ],
)
def test_a_word_decides_about_values_that_no_pattern_allows(
    word: Word | None, example: tuple[str, ...], other: tuple[str, ...] | str, none: tuple[str, ...] | str
) -> None:
    for asking, expected in ((EXAMPLE, example), (OTHER, other), (asked(), none)):
        violations, certified = decide(asking, "organizations", rules("Example*", word=word))
        if isinstance(expected, str):
            assert [f"(spec.subject.organizations.{expected})" in each for each in violations] == [True]
        else:
            assert (violations, certified) == ([], expected)


def test_an_attribute_that_is_denied_must_not_be_requested() -> None:
    violations, certified = decide(EXAMPLE, "organizations", rules(word="Deny"))
    assert violations == [
        'organizations "Example" in the subject is not allowed by policy pki/web (spec.subject.organizations.requested)'
    ]
    assert certified == ()
    assert decide(asked(), "organizations", rules(word="Deny")) == ([], ())


@pytest.mark.parametrize("word", [None, "Allow", "Require", "LeaveOut"])
def test_denied_values_are_refused_whatever_the_word(word: Word | None) -> None:
    violations, certified = decide(EXAMPLE, "organizations", rules("**", word=word, denied=("Ex*",)))
    assert ["spec.subject.organizations.denied" in each for each in violations] == [True]
    assert certified == ()


def test_required_patterns_are_met_by_what_is_certified() -> None:
    both = asked((ORGANIZATION, "Example"), (ORGANIZATION, "Other"))
    assert decide(both, "organizations", rules("**", word="LeaveOut", required=("Other",))) == (
        [],
        ("Example", "Other"),
    )
    violations, _ = decide(both, "organizations", rules("Example", word="LeaveOut", required=("Other",)))
    assert ["spec.subject.organizations.required" in each for each in violations] == [True]


@pytest.mark.parametrize(
    ("type_", "attribute", "value", "required"),
    [
        (ORGANIZATION, "organizations", f"Example{'x' * 60}", "Example*"),
        (ORGANIZATION, "organizations", "Example\n", "Example*"),
        (COMMON_NAME, "commonName", "My Server", "My*"),
    ],
)
def test_a_value_that_is_left_out_meets_no_requirement(type_: str, attribute: str, value: str, required: str) -> None:
    leaves_out = rules("**", word="LeaveOut", required=(required,))
    violations, certified = decide(asked((type_, value)), attribute, leaves_out)
    assert [f"(spec.subject.{attribute}.required)" in each for each in violations] == [True]
    assert certified == ()


@pytest.mark.parametrize("word", [None, "Allow", "LeaveOut", "Deny"])
def test_a_blank_value_asks_for_nothing(word: Word | None) -> None:
    allowed = () if word == "Deny" else ("**",)
    for type_, attribute in ((ORGANIZATION, "organizations"), (COMMON_NAME, "commonName")):
        assert decide(asked((type_, " \t")), attribute, rules(*allowed, word=word)) == ([], ())


def test_a_blank_value_is_not_what_a_policy_requires() -> None:
    violations, certified = decide(asked((ORGANIZATION, " ")), "organizations", rules("**", word="Require"))
    assert ["(spec.subject.organizations.requested)" in each for each in violations] == [True]
    assert certified == ()


def test_a_request_that_another_ca_gets_unchanged_has_no_blank_value() -> None:
    anything = SubjectRules({"organizations": rules("**", word="LeaveOut")})
    found = unchanged_violation("organizations", " ", (), anything, "pki/web")
    assert found == 'organizations " " in the subject is blank'


@pytest.mark.parametrize(
    ("type_", "attribute", "value"),
    [
        (COMMON_NAME, "commonName", "My Server"),
        (COMMON_NAME, "commonName", "www.example.com\0"),
        (ORGANIZATION, "organizations", "x" * 65),
        (ORGANIZATION, "organizations", "Example\n"),
        (ORGANIZATION, "organizations", "Exam\u202eple"),
        (ORGANIZATION, "organizations", "Exam\u2028ple"),
        ("2.5.4.6", "countries", "Germany"),
        ("2.5.4.6", "countries", "ÄÖ"),
        ("2.5.4.6", "countries", "**"),
        ("2.5.4.6", "countries", "12"),
    ],
)
def test_what_no_certificate_may_have_is_refused_or_left_out(type_: str, attribute: str, value: str) -> None:
    request = asked((type_, value))
    violations, certified = decide(request, attribute, rules("**"))
    assert len(violations) == 1
    assert violations[0].isprintable()
    assert certified == ()
    assert decide(request, attribute, rules("**", word="LeaveOut")) == ([], ())


def test_a_common_name_that_is_left_out_is_a_name_all_the_same() -> None:
    request = asked((COMMON_NAME, "mail.example.com"), (EMAIL_ADDRESS, "a@example.com"))
    assert {each.value for each in request.names} == {WEB, "mail.example.com"}
    assert decide(request, "commonName", rules(word="LeaveOut")) == ([], ())


@pytest.mark.requirement("M107")
@pytest.mark.parametrize(
    ("wanted", "ordered", "possible"),
    [
        (rules("**"), ["a" * 63 + ".example.com"], True),
        (rules("**", word="Require"), ["a" * 63 + ".example.com"], False),
        (rules("**", word="Require"), ["a" * 63 + ".example.com", "b.example.com"], True),
        (rules("**", required=("www.**",)), ["a.example.com"], False),
        (rules("**", required=("www.**", "**.com")), ["a.example.com", "www.example.com"], True),
        (rules("**", required=("www.**", "a.**")), ["a.example.com", "www.example.com"], False),
        (rules("**", required=("www.**",), denied=("**.com",)), ["www.example.com"], False),
    ],
)
def test_a_common_name_that_no_request_can_have_is_known_before_there_is_one(
    wanted: AttributeRules, ordered: list[str], possible: bool
) -> None:
    found = list(common_name_violations(list(map(dns_name, ordered)), SubjectRules({"commonName": wanted}), "pki/web"))
    assert ["spec.subject.commonName" in each for each in found] == ([] if possible else [True])


def test_costly_rules_for_a_common_name_wait_for_the_request() -> None:
    costly = rules(*(f"*a*b{number}*c" for number in range(90)), word="Require")
    ordered = [dns_name(f"{'a' * 63}.x{number}.example.com") for number in range(100)]
    assert list(common_name_violations(ordered[:1], SubjectRules({"commonName": costly}), "pki/web"))
    assert not list(common_name_violations(ordered, SubjectRules({"commonName": costly}), "pki/web"))
