"""Compiles the rules of policies, profiles and credentials into those of kms.pki.

Both programs compile a resource whenever it changes: the operator to report whether its rules are valid, the server to
apply them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TypeVar

import msgspec

from kms.address import Network
from kms.pki.ca import Asked
from kms.pki.ca import NameConstraints as CompiledConstraints
from kms.pki.csr import SIGNATURE_ALGORITHMS
from kms.pki.keys import KEY_ALGORITHMS
from kms.pki.names import InvalidName, dns_name
from kms.pki.pattern_sets import NetworkSet, PatternSet
from kms.pki.patterns import InvalidPattern, Pattern, label_pattern, value_pattern
from kms.pki.policy import Narrowing, NetworkRules, Policy, Rules, UsageRules
from kms.pki.subject_policy import AttributeRules as CompiledAttributeRules
from kms.pki.subject_policy import SubjectRules as CompiledSubjectRules
from kms.pki.subjects import COMMON_NAME
from kms.pki.usages import KNOWN_USAGES
from kms.resources.authorities import InternalAuthority, NameConstraints, Subject
from kms.resources.credentials import NameRules
from kms.resources.durations import parse_duration
from kms.resources.policies import AttributeRules, CertificatePolicy, DNSNameRules, PolicySpec, SubjectRules, ValueRules
from kms.resources.rule_budget import (
    CREDENTIAL_COMPARISONS,
    MAXIMUM_NAMES,
    POLICY_COMPARISONS,
    check_cost,
    check_number,
)
from kms.resources.rule_budget import InvalidRules as InvalidRules
from kms.resources.rule_budget import RulesTooCostly as RulesTooCostly

T = TypeVar("T")
_FORMER_DEFAULT = frozenset({"ECDSA-SHA256", "ECDSA-SHA384", "RSA-SHA256", "RSA-SHA384", "RSA-SHA512"})


def compile_policy(policy: CertificatePolicy) -> Policy:
    """The compiled rules of a CertificatePolicy.

    Raises InvalidRules for the first invalid rule, and RulesTooCostly if the rules would take too long to apply.
    """
    spec = policy.spec
    check_number(
        {
            **_lists(spec.dns_names, "spec.dnsNames"),
            **_lists(spec.ip_addresses, "spec.ipAddresses"),
            **{
                field: texts
                for name, section in _sections(spec.subject).items()
                for field, texts in _lists(section, f"spec.subject.{name}").items()
            },
        }
    )
    compiled = Policy(
        name=f"{policy.metadata.namespace}/{policy.metadata.name}",
        dns_names=_dns_rules(spec.dns_names, "spec.dnsNames"),
        wildcards=_wildcards(spec.dns_names),
        ip_addresses=_network_rules(spec.ip_addresses, "spec.ipAddresses"),
        subject=_subject_rules(spec.subject),
        usages=UsageRules(
            allowed=_words(spec.usages.allowed, KNOWN_USAGES, "spec.usages.allowed"),
            denied=_words(spec.usages.denied, KNOWN_USAGES, "spec.usages.denied"),
            required=_words(spec.usages.required, KNOWN_USAGES, "spec.usages.required"),
        ),
        key_algorithms=_words(spec.key_algorithms, KEY_ALGORITHMS, "spec.keyAlgorithms"),
        signature_algorithms=_signature_algorithms(spec),
        maximum_duration=_duration(spec.maximum_duration, "spec.maximumDuration"),
        maximum_names=_positive(spec.maximum_names, "spec.maximumNames"),
    )
    number = compiled.maximum_names
    subject = {name: each.rules for name, each in compiled.subject.attributes.items()}
    check_cost(compiled.dns_names, "spec.dnsNames", number=number, subject=subject, budget=POLICY_COMPARISONS)
    return compiled


def compile_narrowing(
    rules: NameRules, name: str, *, holder: str = "EAB credential", path: str = "spec.names"
) -> Narrowing:
    """The narrowing by the EABCredential `name` (`namespace/name`), or by the profile of that name.

    An absent section does not narrow its type. `path` is the field of the rules. Raises InvalidRules, and
    RulesTooCostly if the rules would take too long to apply.
    """
    check_number(
        {
            **_lists(rules.dns_names, f"{path}.dnsNames"),
            **_lists(rules.ip_addresses, f"{path}.ipAddresses"),
        }
    )
    compiled = Narrowing(
        name=name,
        dns_names=_dns_rules(rules.dns_names, f"{path}.dnsNames"),
        wildcards=_wildcards(rules.dns_names),
        ip_addresses=_network_rules(rules.ip_addresses, f"{path}.ipAddresses"),
        holder=holder,
        path=path,
    )
    check_cost(compiled.dns_names, f"{path}.dnsNames", number=MAXIMUM_NAMES, subject={}, budget=CREDENTIAL_COMPARISONS)
    return compiled


def subject_attributes(subject: Subject) -> Mapping[str, tuple[str, ...]]:
    """The attributes of a subject that are set, without the common name, as kms.pki names them."""
    attributes = {
        "countries": subject.countries,
        "provinces": subject.provinces,
        "localities": subject.localities,
        "organizations": subject.organizations,
        "organizationalUnits": subject.organizational_units,
    }
    return MappingProxyType({name: values for name, values in attributes.items() if values})


def compile_constraints(constraints: NameConstraints | None) -> CompiledConstraints | None:
    """The name constraints of an internal CA. Raises InvalidRules."""
    if constraints is None:
        return None
    field = "spec.internal.nameConstraints"
    permitted, excluded = constraints.permitted, constraints.excluded
    return CompiledConstraints(
        permitted_domains=_compile_each(permitted.dns_domains, f"{field}.permitted.dnsDomains", _domain),
        permitted_networks=_compile_each(permitted.ip_ranges, f"{field}.permitted.ipRanges", _network),
        excluded_domains=_compile_each(excluded.dns_domains, f"{field}.excluded.dnsDomains", _domain),
        excluded_networks=_compile_each(excluded.ip_ranges, f"{field}.excluded.ipRanges", _network),
    )


def compile_request(spec: InternalAuthority) -> Asked:
    """What an internal CA asks to be certified as. Raises InvalidRules."""
    return Asked(
        common_name=spec.subject.common_name,
        subject=subject_attributes(spec.subject),
        path_length=spec.path_length,
        constraints=compile_constraints(spec.name_constraints),
    )


def _domain(text: str) -> str:
    """A DNS domain, which includes all names below it. Raises InvalidPattern."""
    try:
        return dns_name(text, wildcard=False).value
    except InvalidName as error:
        raise InvalidPattern(str(error).removesuffix(".")) from None


def _signature_algorithms(spec: PolicySpec) -> frozenset[str]:
    """The listed algorithms; without a list, all that the allowed keys can make: a request is signed with its own key.

    The default of earlier versions counts as no list, because the API server has stored it in policies.
    """
    known = frozenset(SIGNATURE_ALGORITHMS.values())
    listed = _words(spec.signature_algorithms, known, "spec.signatureAlgorithms")
    if listed and listed != _FORMER_DEFAULT:
        return listed
    kinds = {_kind_of(each) for each in spec.key_algorithms}
    return frozenset(each for each in known if _kind_of(each) in kinds)


def _kind_of(algorithm: str) -> str:
    """`RSA`, `ECDSA` or `Ed25519`, of an algorithm of keys or signatures."""
    return algorithm.partition("-")[0]


def _dns_rules(rules: DNSNameRules | None, field: str) -> Rules | None:
    if rules is None:
        return None
    return _rules(rules, field, label_pattern)


def _wildcards(rules: DNSNameRules | None) -> bool:
    return rules is not None and rules.wildcards == "Allow"


def _subject_rules(subject: SubjectRules) -> CompiledSubjectRules:
    return CompiledSubjectRules(
        attributes=MappingProxyType(
            {name: _attribute_rules(section, f"spec.subject.{name}") for name, section in _sections(subject).items()}
        ),
        others=subject.other_attributes,
    )


def _attribute_rules(section: AttributeRules, field: str) -> CompiledAttributeRules:
    """The rules of one attribute. Allow and Require without a list of allowed values stand for all values."""
    if section.requested == "Deny" and (section.allowed or section.required):
        raise InvalidRules(f"{field}.requested", "a value that is denied cannot be allowed or required")
    if section.requested in {"Allow", "Require"} and not section.allowed:
        section = msgspec.structs.replace(section, allowed=("**",))
    return CompiledAttributeRules(_rules(section, field, value_pattern), section.requested)


def _sections(subject: SubjectRules) -> Mapping[str, AttributeRules]:
    """The sections that are present, by attribute."""
    sections = {
        COMMON_NAME: subject.common_name,
        "organizations": subject.organizations,
        "organizationalUnits": subject.organizational_units,
        "countries": subject.countries,
        "localities": subject.localities,
        "provinces": subject.provinces,
    }
    return {name: section for name, section in sections.items() if section is not None}


def _lists(rules: ValueRules | DNSNameRules | AttributeRules | None, field: str) -> Mapping[str, tuple[str, ...]]:
    if rules is None:
        return {}
    return {f"{field}.allowed": rules.allowed, f"{field}.denied": rules.denied, f"{field}.required": rules.required}


def _rules(rules: DNSNameRules | AttributeRules, field: str, compile_: Callable[[str], Pattern]) -> Rules:
    return Rules(
        allowed=PatternSet(_compile_each(rules.allowed, f"{field}.allowed", compile_)),
        denied=PatternSet(_compile_each(rules.denied, f"{field}.denied", compile_)),
        required=PatternSet(_compile_each(rules.required, f"{field}.required", compile_)),
    )


def _network_rules(rules: ValueRules | None, field: str) -> NetworkRules | None:
    if rules is None:
        return None
    return NetworkRules(
        allowed=NetworkSet(_compile_each(rules.allowed, f"{field}.allowed", _network)),
        denied=NetworkSet(_compile_each(rules.denied, f"{field}.denied", _network)),
        required=NetworkSet(_compile_each(rules.required, f"{field}.required", _network)),
    )


def _network(text: str) -> Network:
    """A CIDR block; an address alone is the block of itself. Raises InvalidPattern with what to write instead."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass  # the bits behind the prefix, or all of it
    try:
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InvalidPattern(f'"{text}" is not a CIDR block, such as 10.0.0.0/8 or 2001:db8::/32') from None
    raise InvalidPattern(f'"{text}" has bits set behind the prefix; write "{loose}"')


def _compile_each(texts: Iterable[str], field: str, compile_: Callable[[str], T]) -> tuple[T, ...]:
    compiled: list[T] = []
    for position, text in enumerate(texts):
        try:
            compiled.append(compile_(text))
        except InvalidPattern as error:
            raise InvalidRules(f"{field}[{position}]", str(error)) from None
    return tuple(compiled)


def _words(words: Iterable[str], known: frozenset[str], field: str) -> frozenset[str]:
    chosen = frozenset(words)
    if unknown := sorted(chosen - known):
        raise InvalidRules(field, f'"{unknown[0]}" is not one of {", ".join(sorted(known))}')
    return chosen


def _duration(text: str, field: str) -> timedelta:
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise InvalidRules(field, str(error)) from None
    if duration <= timedelta(0):
        raise InvalidRules(field, "the duration must be longer than zero")
    return duration


def _positive(number: int, field: str) -> int:
    if number < 1:
        raise InvalidRules(field, "a certificate has at least one name")
    return number
