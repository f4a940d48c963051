from __future__ import annotations

import ipaddress
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.csr import CertificateRequest, parse_request
from kms.pki.names import Name, dns_name, ip_address
from kms.pki.pattern_sets import NetworkSet, PatternSet
from kms.pki.patterns import label_pattern, value_pattern
from kms.pki.policy import (
    Narrowing,
    NetworkRules,
    Policy,
    Rules,
    UsageRules,
    contents_violations,
    name_violations,
    request_violations,
)
from kms.pki.subject_policy import AttributeRules, SubjectRules
from tests.support.pki import csr, key, signed
from tests.support.processor import least_time


def rules(*allowed: str, denied: tuple[str, ...] = (), required: tuple[str, ...] = ()) -> Rules:
    return Rules(*(PatternSet(map(label_pattern, patterns)) for patterns in (allowed, denied, required)))


def values(*allowed: str, denied: tuple[str, ...] = (), required: tuple[str, ...] = ()) -> Rules:
    return Rules(*(PatternSet(map(value_pattern, patterns)) for patterns in (allowed, denied, required)))


def subject(others: Literal["Deny", "LeaveOut"] = "LeaveOut", **attributes: Rules) -> SubjectRules:
    return SubjectRules({name: AttributeRules(rules) for name, rules in attributes.items()}, others)


def networks(*allowed: str, denied: tuple[str, ...] = (), required: tuple[str, ...] = ()) -> NetworkRules:
    return NetworkRules(*(NetworkSet(map(ipaddress.ip_network, blocks)) for blocks in (allowed, denied, required)))


POLICY = Policy(
    name="pki/web",
    dns_names=rules("*.apps.example.com", "apps.example.com", denied=("admin.apps.example.com",)),
    wildcards=False,
    ip_addresses=networks("10.0.0.0/8", "2001:db8::/32", denied=("10.0.0.1/32",)),
    subject=subject(commonName=values("**")),
    usages=UsageRules(
        allowed=frozenset({"digital signature", "key encipherment", "server auth", "client auth"}),
        denied=frozenset({"client auth"}),
        required=frozenset({"server auth"}),
    ),
    key_algorithms=frozenset({"ECDSA-P256", "RSA-2048"}),
    signature_algorithms=frozenset({"ECDSA-SHA256", "RSA-SHA256"}),
    maximum_duration=timedelta(hours=2160),
    maximum_names=3,
)


def messages(*names: Name, policy: Policy = POLICY, narrowing: Narrowing | None = None) -> list[str]:
    return [each.message for each in name_violations(names, policy, narrowing)]


def test_names_that_the_policy_allows_violate_nothing() -> None:
    assert messages(dns_name("a.apps.example.com"), ip_address("10.1.2.3"), ip_address("2001:db8::1")) == []


def test_a_violation_names_the_name_the_rule_and_the_policy() -> None:
    name = dns_name("www.example.org")
    (violation,) = name_violations([name], POLICY, None)
    assert violation.name == name
    assert violation.message == 'DNS name "www.example.org" is not allowed by policy pki/web (spec.dnsNames.allowed)'


def test_every_name_that_violates_is_told() -> None:
    names = [dns_name("a.example.org"), dns_name("a.apps.example.com"), ip_address("192.0.2.1")]
    assert [each.name for each in name_violations(names, POLICY, None)] == [names[0], names[2]]


def test_denied_wins_over_allowed() -> None:
    assert messages(dns_name("ADMIN.apps.example.com")) == [
        (
            'DNS name "admin.apps.example.com" is denied by policy pki/web (spec.dnsNames.denied):'
            ' it matches "admin.apps.example.com"'
        )
    ]
    assert messages(ip_address("10.0.0.1")) == [
        'IP address "10.0.0.1" is denied by policy pki/web (spec.ipAddresses.denied): it is in 10.0.0.1/32'
    ]


@pytest.mark.requirement("IP-M8")
def test_an_address_outside_of_all_blocks_is_refused() -> None:
    assert messages(ip_address("11.0.0.1")) == [
        'IP address "11.0.0.1" is not allowed by policy pki/web (spec.ipAddresses.allowed)'
    ]


@pytest.mark.requirement("SEC66")
def test_a_policy_without_a_section_allows_no_name_of_that_type() -> None:
    policy = replace(POLICY, dns_names=None, ip_addresses=None)
    assert messages(dns_name("a.apps.example.com"), ip_address("10.1.2.3"), policy=policy) == [
        'DNS name "a.apps.example.com" is not allowed by policy pki/web: it has no rules for DNS names (spec.dnsNames)',
        'IP address "10.1.2.3" is not allowed by policy pki/web: it has no rules for IP addresses (spec.ipAddresses)',
    ]


@pytest.mark.requirement("SEC66")
def test_an_empty_list_allows_nothing() -> None:
    policy = replace(POLICY, dns_names=Rules(), ip_addresses=NetworkRules())
    assert len(messages(dns_name("a.apps.example.com"), ip_address("10.1.2.3"), policy=policy)) == 2


def test_a_wildcard_needs_the_policys_consent() -> None:
    assert messages(dns_name("*.shop.apps.example.com")) == [
        'wildcard DNS name "*.shop.apps.example.com" is not allowed by policy pki/web (spec.dnsNames.wildcards)'
    ]


def test_a_wildcard_is_allowed_by_a_pattern_for_its_base_name() -> None:
    policy = replace(POLICY, wildcards=True)
    assert messages(dns_name("*.shop.apps.example.com"), policy=policy) == []
    assert messages(dns_name("*.a.shop.apps.example.com"), policy=policy) == [
        (
            'wildcard DNS name "*.a.shop.apps.example.com" is not allowed by policy pki/web (spec.dnsNames.allowed):'
            ' no pattern matches its base name "a.shop.apps.example.com"'
        )
    ]


def test_the_star_of_a_pattern_does_not_allow_a_wildcard_by_itself() -> None:
    policy = replace(POLICY, wildcards=True, dns_names=rules("*.example.com"))
    assert len(messages(dns_name("*.example.com"), policy=policy)) == 1


@pytest.mark.parametrize("denied", ["admin.apps.example.com", "adm*.apps.example.com", "**.apps.example.com"])
def test_a_wildcard_that_would_cover_a_denied_name_is_denied(denied: str) -> None:
    policy = replace(POLICY, wildcards=True, dns_names=rules("apps.example.com", denied=(denied,)))
    (message,) = messages(dns_name("*.apps.example.com"), policy=policy)
    assert "is denied by policy pki/web (spec.dnsNames.denied)" in message
    assert denied in message


def test_a_wildcard_without_consent_is_refused_for_that_even_if_it_covers_a_denied_name() -> None:
    policy = replace(POLICY, dns_names=rules("apps.example.com", denied=("admin.apps.example.com",)))
    (message,) = messages(dns_name("*.apps.example.com"), policy=policy)
    assert "is not allowed by policy pki/web (spec.dnsNames.wildcards)" in message


def test_required_patterns_want_at_least_one_name_each() -> None:
    policy = replace(
        POLICY,
        dns_names=rules("**", required=("*.apps.example.com", "*.example.org")),
        ip_addresses=networks("0.0.0.0/0", required=("10.0.0.0/8",)),
    )
    assert messages(dns_name("a.apps.example.com"), policy=policy) == [
        'a DNS name that matches "*.example.org" is required by policy pki/web (spec.dnsNames.required)',
        "an IP address in 10.0.0.0/8 is required by policy pki/web (spec.ipAddresses.required)",
    ]
    complete = (dns_name("a.apps.example.com"), dns_name("a.example.org"), ip_address("10.0.0.2"))
    assert messages(*complete, policy=policy) == []


def test_required_patterns_that_differ_in_case_only_are_one() -> None:
    for twice in (("A.example.org", "a.example.org"), ("*.Example.org", "*.example.org"), ("a*.X", "A*.x")):
        policy = replace(POLICY, dns_names=rules("**", required=twice))
        assert messages(dns_name("a.example.org"), dns_name("a.x"), policy=policy) == []


def test_too_many_names_are_refused_with_the_limit() -> None:
    names = [dns_name(f"{each}.apps.example.com") for each in "abcd"]
    assert messages(*names[:3]) == []
    assert messages(*names) == [
        "4 names are more than the 3 that policy pki/web allows in a certificate (spec.maximumNames)"
    ]


NARROWING = Narrowing(name="shop/ci", dns_names=rules("shop.apps.example.com"), wildcards=False, ip_addresses=None)


def test_a_credential_narrows_the_policy() -> None:
    assert messages(dns_name("shop.apps.example.com"), narrowing=NARROWING) == []
    assert messages(dns_name("other.apps.example.com"), narrowing=NARROWING) == [
        'DNS name "other.apps.example.com" is not allowed by EAB credential shop/ci (spec.names.dnsNames.allowed)'
    ]


def test_a_credential_never_widens_the_policy() -> None:
    wide = replace(NARROWING, dns_names=rules("**"), wildcards=True, ip_addresses=networks("0.0.0.0/0"))
    names = (dns_name("www.example.org"), dns_name("*.apps.example.com"), ip_address("192.0.2.1"))
    assert messages(*names, narrowing=wide) == messages(*names)


def test_a_credential_leaves_the_types_that_it_does_not_speak_of() -> None:
    assert messages(ip_address("10.1.2.3"), narrowing=NARROWING) == []
    only_addresses = replace(NARROWING, dns_names=None, ip_addresses=networks("10.1.0.0/16"))
    assert messages(dns_name("a.apps.example.com"), ip_address("10.1.2.3"), narrowing=only_addresses) == []
    assert messages(ip_address("10.2.0.1"), narrowing=only_addresses) == [
        'IP address "10.2.0.1" is not allowed by EAB credential shop/ci (spec.names.ipAddresses.allowed)'
    ]
    wildcards = replace(POLICY, wildcards=True)
    assert messages(dns_name("*.apps.example.com"), policy=replace(wildcards, dns_names=rules("**"))) == []
    assert (
        messages(
            dns_name("*.apps.example.com"), policy=replace(wildcards, dns_names=rules("**")), narrowing=only_addresses
        )
        == []
    )


@pytest.mark.requirement("SEC41")
def test_a_large_policy_and_a_large_order_do_not_hold_up_the_event_loop() -> None:
    patterns = [f"**.team-{each}*.apps.example.com" for each in range(500)]
    policy = replace(POLICY, dns_names=rules(*patterns, denied=tuple(patterns)), wildcards=True, maximum_names=100)
    names = [dns_name(f"a.b{each}.apps.example.com") for each in range(100)]
    assert len(name_violations(names, policy, None)) == 100
    assert least_time(lambda: name_violations(names, policy, None)) < 0.2  # 20 ms on the machine of the measurements


labels = st.sampled_from(["a", "b", "apps", "example", "com"])
some_names = st.builds(
    lambda star, parts: dns_name(("*." if star else "") + ".".join(parts)),
    st.booleans(),
    st.lists(labels, min_size=1, max_size=4),
)
some_patterns = st.lists(st.sampled_from(["a", "*", "**", "a*", "apps", "com"]), min_size=1, max_size=4).map(".".join)
some_rules = st.builds(
    lambda allowed, denied: rules(*allowed, denied=tuple(denied)),
    st.lists(some_patterns, max_size=3),
    st.lists(some_patterns, max_size=2),
)


@given(some_names, some_rules, st.booleans())
def test_an_allowed_name_is_one_that_a_rule_allows_and_none_denies(name: Name, chosen: Rules, wildcards: bool) -> None:
    policy = replace(POLICY, dns_names=chosen, wildcards=wildcards)
    if name_violations([name], policy, None) == ():
        assert chosen.allows(name.base)
        assert wildcards or not name.is_wildcard
    elif not name.is_wildcard:
        assert not chosen.allows(name.value)


@given(st.lists(some_names, max_size=4), some_rules, some_rules)
def test_narrowing_only_ever_adds_violations(names: list[Name], wide: Rules, narrow: Rules) -> None:
    policy = replace(POLICY, dns_names=wide, wildcards=True, maximum_names=10)
    narrowing = replace(NARROWING, dns_names=narrow, wildcards=True)
    alone = name_violations(names, policy, None)
    both = name_violations(names, policy, narrowing)
    assert both[: len(alone)] == alone
    if not len(narrow.allowed):
        assert {each.name for each in both if each.name} == set(names)


def request_for(
    *names: str, common_name: str | None = None, algorithm: str = "ECDSA", size: int | None = 256
) -> CertificateRequest:
    return parse_request(csr(*names, common_name=common_name, signed_with=key(algorithm, size)))


def objections(request: CertificateRequest, policy: Policy = POLICY, narrowing: Narrowing | None = None) -> list[str]:
    return [each.message for each in request_violations(request, policy, narrowing)]


def test_a_request_within_the_policy_violates_nothing() -> None:
    request = request_for("a.apps.example.com", "10.0.0.2", common_name="a.apps.example.com")
    assert objections(request) == []
    assert objections(request_for("a.apps.example.com", algorithm="RSA", size=2048)) == []


@pytest.mark.requirement("IP-M8", "SEC28")
def test_the_names_of_a_request_meet_the_same_rules_as_those_of_an_order() -> None:
    request = request_for("a.example.org", "10.0.0.1")
    names = sorted(request.names)
    assert request_violations(request, POLICY, None) == name_violations(names, POLICY, None)
    assert objections(request_for("a.apps.example.com"), narrowing=NARROWING) != []


def test_a_common_name_must_be_one_of_the_names() -> None:
    assert objections(request_for("a.apps.example.com", common_name="My Server")) == [
        'the common name "My Server" is not one of the names of the certificate request'
    ]


def test_the_common_name_meets_its_own_rules_too() -> None:
    policy = replace(POLICY, subject=subject(commonName=values("*.apps.example.com", denied=("b.**",))))
    assert objections(request_for("a.apps.example.com", common_name="a.apps.example.com"), policy) == []
    assert objections(request_for(common_name="b.apps.example.com"), policy) == [
        (
            'commonName "b.apps.example.com" in the subject is denied by policy pki/web'
            ' (spec.subject.commonName.denied): it matches "b.**"'
        )
    ]
    assert objections(request_for(common_name="apps.example.com"), policy) == [
        (
            'commonName "apps.example.com" in the subject is not allowed by policy pki/web'
            " (spec.subject.commonName.allowed)"
        )
    ]
    strict = replace(POLICY, subject=subject(others="Deny"))
    assert objections(request_for(common_name="apps.example.com"), strict) == [
        (
            'commonName "apps.example.com" in the subject is not allowed by policy pki/web: it has no rules for it'
            " (spec.subject.otherAttributes)"
        )
    ]


def with_subject(*attributes: tuple[x509.ObjectIdentifier, str]) -> CertificateRequest:
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
    names = x509.SubjectAlternativeName([x509.DNSName("a.apps.example.com")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(names, critical=False)
    return parse_request(signed(builder, key()))


def test_other_attributes_are_left_out_unless_the_policy_denies_them() -> None:
    request = with_subject((NameOID.ORGANIZATION_NAME, "Example"), (NameOID.EMAIL_ADDRESS, "a@example.com"))
    assert objections(request) == []
    policy = replace(POLICY, subject=subject("Deny", organizations=values("Example*")))
    (message,) = objections(request, policy)
    assert "is not allowed by policy pki/web: it has no rules for it (spec.subject.otherAttributes)" in message
    assert "a@example.com" in message


@pytest.mark.requirement("SEC33")
def test_hostile_text_in_a_subject_breaks_no_line_and_floods_no_log() -> None:
    hostile = "x\r\nlevel=info \x1b[31m\u202e" + "y" * 5000
    request = with_subject((NameOID.PSEUDONYM, hostile), (NameOID.COMMON_NAME, "a\nb"))
    found = objections(request, replace(POLICY, subject=subject("Deny", commonName=values("**"))))
    assert len(found) == 2
    assert all(message.isprintable() and len(message) < 250 for message in found)


def test_required_attributes_must_be_there() -> None:
    policy = replace(POLICY, subject=subject(organizations=values("**", required=("Example", "Other"))))
    request = with_subject((NameOID.ORGANIZATION_NAME, "Example"))
    assert objections(request, policy) == [
        (
            'a subject with organizations matching "Other" is required by policy pki/web'
            " (spec.subject.organizations.required)"
        )
    ]


def test_key_and_signature_must_be_of_the_allowed_algorithms() -> None:
    assert objections(request_for("a.apps.example.com", algorithm="Ed25519", size=None)) == [
        "key algorithm Ed25519 is not allowed by policy pki/web (spec.keyAlgorithms): use ECDSA-P256, RSA-2048",
        (
            "signature algorithm Ed25519 of the certificate request is not allowed by policy pki/web"
            " (spec.signatureAlgorithms): use ECDSA-SHA256, RSA-SHA256"
        ),
    ]
    nothing = replace(POLICY, key_algorithms=frozenset())
    assert objections(request_for("a.apps.example.com"), nothing)[0].endswith("use nothing")


def contents(*usages: str, hours: float = 720, policy: Policy = POLICY) -> list[str]:
    return [each.message for each in contents_violations(usages, timedelta(hours=hours), policy)]


def test_contents_within_the_policy_violate_nothing() -> None:
    assert contents("digital signature", "key encipherment", "server auth") == []
    assert contents("server auth", hours=2160) == []


def test_usages_meet_the_rules_of_the_policy() -> None:
    assert contents("digital signature", "client auth", "code signing") == [
        'usage "client auth" is denied by policy pki/web (spec.usages.denied)',
        'usage "code signing" is not allowed by policy pki/web (spec.usages.allowed)',
        'usage "server auth" is required by policy pki/web (spec.usages.required)',
    ]


def test_a_usage_that_does_not_exist_is_told() -> None:
    assert contents("server auth", "cert sign") == ['there is no usage "cert sign" for certificates of a profile']


def test_usages_that_would_leave_some_keys_without_a_key_usage_are_told() -> None:
    assert contents("key encipherment", "server auth") == [
        (
            "none of the key usages suits the ECDSA-P256 keys that policy pki/web allows (spec.keyAlgorithms);"
            ' add "digital signature"'
        )
    ]
    assert (
        contents("key encipherment", "server auth", policy=replace(POLICY, key_algorithms=frozenset({"RSA-2048"})))
        == []
    )


def test_the_duration_must_be_within_the_maximum() -> None:
    assert contents("server auth", hours=2160.5) == [
        "a duration of 2160.5h is longer than the 2160h that policy pki/web allows (spec.maximumDuration)"
    ]
    assert contents("server auth", hours=0) == ["the duration must be longer than zero"]
