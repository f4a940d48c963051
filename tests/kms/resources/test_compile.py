from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import yaml

from kms.pki.csr import SIGNATURE_ALGORITHMS
from kms.pki.keys import KEY_ALGORITHMS
from kms.pki.names import dns_name, ip_address
from kms.pki.pattern_sets import NetworkSet
from kms.pki.policy import name_violations
from kms.pki.usages import KNOWN_USAGES
from kms.resources import CertificatePolicy
from kms.resources.authorities import NameConstraints, Subject
from kms.resources.compile import (
    InvalidRules,
    compile_constraints,
    compile_narrowing,
    compile_policy,
    subject_attributes,
)
from kms.resources.credentials import NameRules
from kms.resources.kinds import POLICIES
from tests.support.crds import schema


def policy(spec: dict[str, Any]) -> CertificatePolicy:
    return msgspec.convert({"metadata": {"name": "web", "namespace": "pki"}, "spec": spec}, CertificatePolicy)


DOCUMENTED = """
dnsNames:
  allowed: ["*.apps.example.com", "**.svc.cluster.local"]
  denied: ["admin.apps.example.com"]
  required: []
  wildcards: Deny
ipAddresses: {allowed: [10.0.0.0/8], denied: [10.0.0.1/32], required: []}
subject:
  commonName: {allowed: ["**"]}
usages: {allowed: [digital signature, key encipherment, server auth, client auth], required: [], denied: []}
keyAlgorithms: [ECDSA-P256, ECDSA-P384, RSA-2048, RSA-3072, RSA-4096]
signatureAlgorithms: [ECDSA-SHA256, ECDSA-SHA384, RSA-SHA256, RSA-SHA384, RSA-SHA512]
maximumDuration: 2160h
maximumNames: 100
"""


FORMER_DEFAULT = ["ECDSA-SHA256", "ECDSA-SHA384", "RSA-SHA256", "RSA-SHA384", "RSA-SHA512"]


def test_the_policy_of_the_manual_compiles() -> None:
    compiled = compile_policy(policy(yaml.safe_load(DOCUMENTED)))
    assert compiled.name == "pki/web"
    assert compiled.wildcards is False
    assert compiled.maximum_duration == timedelta(days=90)
    assert compiled.maximum_names == 100
    assert compiled.key_algorithms == {"ECDSA-P256", "ECDSA-P384", "RSA-2048", "RSA-3072", "RSA-4096"}
    assert compiled.usages.allowed == {"digital signature", "key encipherment", "server auth", "client auth"}
    assert list(compiled.subject.attributes) == ["commonName"]
    allowed = [dns_name("shop.apps.example.com"), dns_name("a.b.svc.cluster.local"), ip_address("10.1.2.3")]
    denied = [dns_name("admin.apps.example.com"), dns_name("apps.example.com"), ip_address("10.0.0.1")]
    assert [each.name for each in name_violations([*allowed, *denied], compiled, None)] == denied


def test_a_policy_that_says_nothing_allows_no_name_at_all() -> None:
    compiled = compile_policy(policy({}))
    assert compiled.dns_names is None
    assert compiled.ip_addresses is None
    assert compiled.wildcards is False
    assert len(name_violations([dns_name("a.example"), ip_address("10.0.0.1")], compiled, None)) == 2
    documented = compile_policy(policy(yaml.safe_load(DOCUMENTED)))
    assert compiled.usages == documented.usages
    assert compiled.subject == documented.subject
    assert compiled.key_algorithms == documented.key_algorithms
    assert compiled.signature_algorithms == documented.signature_algorithms
    assert compiled.maximum_duration == documented.maximum_duration
    assert compiled.maximum_names == documented.maximum_names


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, {"ECDSA-SHA256", "ECDSA-SHA384", "ECDSA-SHA512", "RSA-SHA256", "RSA-SHA384", "RSA-SHA512"}),
        ({"keyAlgorithms": ["Ed25519"]}, {"Ed25519"}),
        (
            {"keyAlgorithms": ["ECDSA-P256", "Ed25519"]},
            {"ECDSA-SHA256", "ECDSA-SHA384", "ECDSA-SHA512", "Ed25519"},
        ),
        ({"keyAlgorithms": ["Ed25519"], "signatureAlgorithms": FORMER_DEFAULT}, {"Ed25519"}),
        ({"keyAlgorithms": ["RSA-2048"], "signatureAlgorithms": ["RSA-SHA512"]}, {"RSA-SHA512"}),
        (
            {"keyAlgorithms": ["ECDSA-P256"], "signatureAlgorithms": ["RSA-SHA256", "ECDSA-SHA256"]},
            {"RSA-SHA256", "ECDSA-SHA256"},
        ),
    ],
)
def test_signature_algorithms_follow_from_the_keys(spec: dict[str, Any], expected: set[str]) -> None:
    assert compile_policy(policy(spec)).signature_algorithms == expected


@pytest.mark.parametrize(
    ("section", "value", "allowed"),
    [
        ({"requested": "Allow"}, "Example", True),
        ({"requested": "Require"}, "Example", True),
        ({"requested": "Allow", "allowed": ["Other"]}, "Example", False),
        ({"requested": "LeaveOut"}, "Example", False),
        ({"requested": "LeaveOut", "allowed": ["Ex*"]}, "Example", True),
        ({"requested": "Deny"}, "Example", False),
        ({}, "Example", False),
    ],
)
def test_a_word_without_a_list_stands_for_all_values(section: dict[str, Any], value: str, allowed: bool) -> None:
    compiled = compile_policy(policy({"subject": {"organizations": section}}))
    assert compiled.subject.attributes["organizations"].rules.allows(value) is allowed


def test_a_value_that_is_denied_cannot_be_required() -> None:
    section = {"requested": "Deny", "required": ["Example"]}
    with pytest.raises(InvalidRules, match=r"spec\.subject\.countries\.requested"):
        compile_policy(policy({"subject": {"countries": section}}))


def test_every_attribute_of_the_subject_has_its_rules() -> None:
    attributes = ["commonName", "organizations", "organizationalUnits", "countries", "localities", "provinces"]
    compiled = compile_policy(policy({"subject": {each: {"allowed": [f"{each} *"]} for each in attributes}}))
    assert set(compiled.subject.attributes) == set(attributes)
    for each in attributes:
        assert compiled.subject.attributes[each].rules.allows(f"{each} 1")


@pytest.mark.parametrize(
    ("spec", "field", "says"),
    [
        ({"dnsNames": {"allowed": ["a.example", "a b"]}}, "spec.dnsNames.allowed[1]", '"a b" matches no DNS name'),
        ({"dnsNames": {"denied": ["a**.example"]}}, "spec.dnsNames.denied[0]", "stands alone"),
        ({"dnsNames": {"required": ["bücher.example"]}}, "spec.dnsNames.required[0]", "xn--"),
        ({"ipAddresses": {"allowed": ["10.0.0.1/8"]}}, "spec.ipAddresses.allowed[0]", 'write "10.0.0.0/8"'),
        ({"ipAddresses": {"denied": ["example.com"]}}, "spec.ipAddresses.denied[0]", "not a CIDR block"),
        ({"ipAddresses": {"required": ["10.0.0.0/33"]}}, "spec.ipAddresses.required[0]", "not a CIDR block"),
        ({"subject": {"organizations": {"allowed": [""]}}}, "spec.subject.organizations.allowed[0]", "empty pattern"),
        ({"usages": {"allowed": ["cert sign"]}}, "spec.usages.allowed", '"cert sign" is not one of'),
        ({"usages": {"denied": ["x"]}}, "spec.usages.denied", '"x" is not one of'),
        ({"usages": {"required": ["x"]}}, "spec.usages.required", '"x" is not one of'),
        ({"keyAlgorithms": ["RSA-1024"]}, "spec.keyAlgorithms", "RSA-2048"),
        ({"signatureAlgorithms": ["RSA-SHA1"]}, "spec.signatureAlgorithms", "RSA-SHA256"),
        ({"maximumDuration": "90d"}, "spec.maximumDuration", "2160h"),
        ({"maximumDuration": "0s"}, "spec.maximumDuration", "longer than zero"),
        ({"maximumNames": 0}, "spec.maximumNames", "at least one name"),
    ],
)
def test_a_rule_that_makes_no_sense_is_told_with_its_field(spec: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(InvalidRules) as refusal:
        compile_policy(policy(spec))
    assert refusal.value.field == field
    assert says in refusal.value.message
    assert str(refusal.value) == f"{field}: {refusal.value.message}"


@pytest.mark.parametrize(
    ("field", "known"),
    [
        ("keyAlgorithms", KEY_ALGORITHMS),
        ("signatureAlgorithms", frozenset(SIGNATURE_ALGORITHMS.values())),
    ],
)
def test_the_words_of_the_schema_are_those_that_compile(field: str, known: frozenset[str]) -> None:
    spec = schema(POLICIES)["properties"]["spec"]["properties"]
    assert set(spec[field]["items"]["enum"]) == known


def test_the_usages_of_the_schema_are_those_that_compile() -> None:
    usages = schema(POLICIES)["properties"]["spec"]["properties"]["usages"]["properties"]
    for each in ("allowed", "denied", "required"):
        assert set(usages[each]["items"]["enum"]) == KNOWN_USAGES


def narrowed(rules: dict[str, Any]) -> NameRules:
    return msgspec.convert(rules, NameRules)


def test_a_narrowing_compiles() -> None:
    rules = narrowed(
        {"dnsNames": {"allowed": ["a.example"], "wildcards": "Allow"}, "ipAddresses": {"allowed": ["::/0"]}}
    )
    compiled = compile_narrowing(rules, "shop/ci")
    assert compiled.name == "shop/ci"
    assert compiled.wildcards is True
    assert compiled.dns_names is not None
    assert compiled.dns_names.allows("a.example")
    assert compiled.ip_addresses is not None
    assert compiled.ip_addresses.allowed == NetworkSet.of(ipaddress.ip_network("::/0"))
    empty = compile_narrowing(narrowed({}), "shop/ci")
    assert (empty.dns_names, empty.wildcards, empty.ip_addresses) == (None, False, None)


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"dnsNames": {"allowed": [".."]}}, "spec.names.dnsNames.allowed[0]"),
        ({"ipAddresses": {"denied": ["x"]}}, "spec.names.ipAddresses.denied[0]"),
    ],
)
def test_a_narrowing_that_makes_no_sense_is_told_with_its_field(rules: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRules) as refusal:
        compile_narrowing(narrowed(rules), "shop/ci")
    assert refusal.value.field == field


def test_name_constraints_compile() -> None:
    constraints = msgspec.convert(
        {
            "permitted": {"dnsDomains": ["Example.com"], "ipRanges": ["10.0.0.0/8"]},
            "excluded": {"dnsDomains": ["admin.example.com"], "ipRanges": ["2001:db8::/32"]},
        },
        NameConstraints,
    )
    compiled = compile_constraints(constraints)
    assert compiled is not None
    assert compiled.permitted_domains == ("example.com",)
    assert compiled.permitted_networks == (ipaddress.ip_network("10.0.0.0/8"),)
    assert compiled.excluded_domains == ("admin.example.com",)
    assert compiled.excluded_networks == (ipaddress.ip_network("2001:db8::/32"),)
    assert compile_constraints(None) is None


@pytest.mark.parametrize(
    ("constraints", "field"),
    [
        ({"permitted": {"dnsDomains": [".example.com"]}}, "spec.internal.nameConstraints.permitted.dnsDomains[0]"),
        ({"permitted": {"ipRanges": ["10.0.0.1/8"]}}, "spec.internal.nameConstraints.permitted.ipRanges[0]"),
        ({"excluded": {"dnsDomains": ["a", "*.b"]}}, "spec.internal.nameConstraints.excluded.dnsDomains[1]"),
        ({"excluded": {"ipRanges": ["x"]}}, "spec.internal.nameConstraints.excluded.ipRanges[0]"),
    ],
)
def test_name_constraints_that_make_no_sense_are_told_with_their_field(constraints: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRules) as refusal:
        compile_constraints(msgspec.convert(constraints, NameConstraints))
    assert refusal.value.field == field
    assert not refusal.value.message.endswith(".")


def test_the_attributes_of_a_subject_go_by_the_names_of_manifests() -> None:
    subject = Subject(
        common_name="not among them",
        organizations=("Example",),
        organizational_units=("Web",),
        countries=("DE",),
        localities=("Berlin",),
        provinces=("Berlin",),
    )
    assert subject_attributes(subject) == {
        "organizations": ("Example",),
        "organizationalUnits": ("Web",),
        "countries": ("DE",),
        "localities": ("Berlin",),
        "provinces": ("Berlin",),
    }
    assert subject_attributes(Subject()) == {}
