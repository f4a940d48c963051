"""Certificate policies: which names, subjects, keys, usages and lifetimes a certificate may have.

A policy is applied twice: to the names of an order, so that no client solves challenges for a certificate that cannot
be issued, and to the certificate request. Each time every violation is reported, with the name, the rule and the
policy. A name that no rule allows is denied; a part of the subject without rules is left out of the certificate.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from kms.pki.csr import CertificateRequest
from kms.pki.names import Name
from kms.pki.pattern_sets import NO_NETWORKS, NetworkSet, Value
from kms.pki.rules import Rules as Rules
from kms.pki.subject_policy import SubjectRules, subject_violations
from kms.pki.usages import KNOWN_USAGES, lacks_key_usage

_LITERAL_LABELS = 2
_SHORTEST_PREFIX: Mapping[int, int] = MappingProxyType({4: 8, 6: 32})


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """The same for IP addresses, with CIDR blocks."""

    allowed: NetworkSet = NO_NETWORKS
    denied: NetworkSet = NO_NETWORKS
    required: NetworkSet = NO_NETWORKS


@dataclass(frozen=True, slots=True)
class UsageRules:
    """The same for key usages, which are words and not patterns."""

    allowed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one CertificatePolicy, compiled. `name` is `namespace/name`, for messages.

    `dns_names` or `ip_addresses` of None: no names of that type at all.
    """

    name: str
    dns_names: Rules | None
    wildcards: bool
    ip_addresses: NetworkRules | None
    subject: SubjectRules
    usages: UsageRules
    key_algorithms: frozenset[str]
    signature_algorithms: frozenset[str]
    maximum_duration: timedelta
    maximum_names: int


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The names of a policy that an EAB credential or a profile allows some accounts: each must allow a name.

    Unlike in a policy, None does not narrow names of that type. `name` is `namespace/name` of the `holder`, and `path`
    the field of its rules, both for messages.
    """

    name: str
    dns_names: Rules | None
    wildcards: bool
    ip_addresses: NetworkRules | None
    holder: str = "EAB credential"
    path: str = "spec.names"


@dataclass(frozen=True, slots=True)
class Violation:
    """The violation of one rule: a clause for people, without a full stop, and the name that it is about."""

    message: str
    name: Name | None = None


@dataclass(frozen=True, slots=True)
class _Compared:
    """A name, and the base of a DNS name as patterns compare it; None for an IP address."""

    name: Name
    base: Value | None

    @classmethod
    def of(cls, name: Name) -> _Compared:
        return cls(name, Value.of(name.base) if name.type == "dns" else None)


@dataclass(frozen=True, slots=True)
class _NameRules:
    """The name rules of a policy or of a credential, and their names in messages."""

    holder: str
    path: str
    wildcards: bool
    dns_names: Rules | None
    ip_addresses: NetworkRules | None

    def at(self, rule: str) -> str:
        """`policy pki/web (spec.dnsNames.allowed)`."""
        return f"{self.holder} ({self.path}.{rule})"


def name_violations(names: Sequence[Name], policy: Policy, *narrowings: Narrowing | None) -> tuple[Violation, ...]:
    """How these names violate the policy and what narrows it."""
    found: list[Violation] = []
    if len(names) > policy.maximum_names:
        found.append(
            Violation(
                f"{len(names)} names are more than the {policy.maximum_names} that policy {policy.name} allows"
                " in a certificate (spec.maximumNames)"
            )
        )
    compared = [_Compared.of(name) for name in names]
    found.extend(_against(_rules_of_policy(policy), compared))
    for narrowing in filter(None, narrowings):
        narrowed = {"dns": narrowing.dns_names, "ip": narrowing.ip_addresses}
        rules = _rules_of_narrowing(narrowing)
        found.extend(_against(rules, [each for each in compared if narrowed[each.name.type] is not None]))
    return tuple(found)


def request_violations(
    request: CertificateRequest, policy: Policy, *narrowings: Narrowing | None
) -> tuple[Violation, ...]:
    """How a certificate request violates the policy: by names, subject, key or signature algorithm.

    The caller compares the names with those of the order. The strength of the key was checked when the request was
    parsed. What the policy leaves out of the subject is no violation (`granted_subject`).
    """
    return (
        *name_violations(sorted(request.names), policy, *narrowings),
        *map(Violation, subject_violations(request, policy.subject, policy.name)),
        *_against_key(request, policy),
    )


def contents_violations(usages: Collection[str], duration: timedelta, policy: Policy) -> tuple[Violation, ...]:
    """How the usages and the duration of a profile violate the policy.

    It is a violation too if a key algorithm that the policy allows would be left without any key usage.
    """
    return tuple(map(Violation, (*_against_usages(frozenset(usages), policy), *_against_duration(duration, policy))))


def unlisted_names(policy: Policy) -> str | None:
    """What the policy allows without listing it, as the end of a sentence after "allows"; None: it lists all names.

    A pattern lists names if it has no star or ends in two literal labels, so that it stays within one domain of an
    organization; a network does up to /8 of IPv4, the largest private one, and up to /32 of IPv6, that of a provider.
    """
    patterns = list(policy.dns_names.allowed) if policy.dns_names else []
    networks = list(policy.ip_addresses.allowed) if policy.ip_addresses else []
    if not patterns and not networks:
        return "none or all"
    for pattern in patterns:
        if not set(pattern) - set("*."):
            return "none or all"
        if "*" in pattern and pattern.rpartition("*")[2].count(".") < _LITERAL_LABELS:
            return f'"{pattern}", which does not end in two literal labels as "**.example.com" does'
    for network in networks:
        if not network.prefixlen:
            return "none or all"
        if network.prefixlen < _SHORTEST_PREFIX[network.version]:
            return f"{network}, which is wider than /{_SHORTEST_PREFIX[network.version]}"
    return None


def _rules_of_policy(policy: Policy) -> _NameRules:
    return _NameRules(f"policy {policy.name}", "spec", policy.wildcards, policy.dns_names, policy.ip_addresses)


def _rules_of_narrowing(narrowing: Narrowing) -> _NameRules:
    return _NameRules(
        f"{narrowing.holder} {narrowing.name}",
        narrowing.path,
        narrowing.wildcards,
        narrowing.dns_names,
        narrowing.ip_addresses,
    )


def _against(rules: _NameRules, names: Sequence[_Compared]) -> Iterator[Violation]:
    for each in names:
        objection = _against_ip_address(rules, each) if each.base is None else _against_dns_name(rules, each, each.base)
        if objection:
            yield Violation(objection, each.name)
    yield from map(Violation, _find_missing(rules, names))


def _against_dns_name(rules: _NameRules, compared: _Compared, base: Value) -> str | None:
    name = compared.name
    if rules.dns_names is None:
        return f"{name} is not allowed by {rules.holder}: it has no rules for DNS names ({rules.path}.dnsNames)"
    if name.is_wildcard and not rules.wildcards:
        return f"{name} is not allowed by {rules.at('dnsNames.wildcards')}"
    denied = rules.dns_names.denied
    # A wildcard certificate covers every name below its base, and so the denied one.
    if pattern := denied.find(base) or (denied.find_below(base) if name.is_wildcard else None):
        return f'{name} is denied by {rules.at("dnsNames.denied")}: it matches "{pattern}"'
    if rules.dns_names.allowed.find(base) is None:
        why = f': no pattern matches its base name "{name.base}"' if name.is_wildcard else ""
        return f"{name} is not allowed by {rules.at('dnsNames.allowed')}{why}"
    return None


def _against_ip_address(rules: _NameRules, compared: _Compared) -> str | None:
    name, address = compared.name, ipaddress.ip_address(compared.name.value)
    if rules.ip_addresses is None:
        return f"{name} is not allowed by {rules.holder}: it has no rules for IP addresses ({rules.path}.ipAddresses)"
    if network := rules.ip_addresses.denied.find(address):
        return f"{name} is denied by {rules.at('ipAddresses.denied')}: it is in {network}"
    if rules.ip_addresses.allowed.find(address) is None:
        return f"{name} is not allowed by {rules.at('ipAddresses.allowed')}"
    return None


def _find_missing(rules: _NameRules, names: Sequence[_Compared]) -> Iterator[str]:
    if rules.dns_names is not None and len(rules.dns_names.required):
        required = rules.dns_names.required
        met = {pattern for each in names if each.base is not None for pattern in required.find_all(each.base)}
        for pattern in required:
            if pattern not in met:
                yield f'a DNS name that matches "{pattern}" is required by {rules.at("dnsNames.required")}'
    if rules.ip_addresses is not None and len(rules.ip_addresses.required):
        addresses = [ipaddress.ip_address(each.name.value) for each in names if each.base is None]
        for network in rules.ip_addresses.required.find_empty(addresses):
            yield f"an IP address in {network} is required by {rules.at('ipAddresses.required')}"


def _against_key(request: CertificateRequest, policy: Policy) -> Iterator[Violation]:
    if request.key_algorithm not in policy.key_algorithms:
        yield Violation(
            f"key algorithm {request.key_algorithm} is not allowed by policy {policy.name} (spec.keyAlgorithms):"
            f" use {_join(policy.key_algorithms)}"
        )
    if request.signature_algorithm not in policy.signature_algorithms:
        yield Violation(
            f"signature algorithm {request.signature_algorithm} of the certificate request is not allowed by policy"
            f" {policy.name} (spec.signatureAlgorithms): use {_join(policy.signature_algorithms)}"
        )


def _against_usages(usages: frozenset[str], policy: Policy) -> Iterator[str]:
    for usage in sorted(usages):
        if usage not in KNOWN_USAGES:
            yield f'there is no usage "{usage}" for certificates of a profile'
        elif usage in policy.usages.denied:
            yield f'usage "{usage}" is denied by policy {policy.name} (spec.usages.denied)'
        elif usage not in policy.usages.allowed:
            yield f'usage "{usage}" is not allowed by policy {policy.name} (spec.usages.allowed)'
    for usage in sorted(policy.usages.required - usages):
        yield f'usage "{usage}" is required by policy {policy.name} (spec.usages.required)'
    for algorithm in sorted(policy.key_algorithms):
        if lacks_key_usage(usages, algorithm):
            yield (
                f"none of the key usages suits the {algorithm} keys that policy {policy.name} allows"
                ' (spec.keyAlgorithms); add "digital signature"'
            )


def _against_duration(duration: timedelta, policy: Policy) -> Iterator[str]:
    if duration <= timedelta(0):
        yield "the duration must be longer than zero"
    if duration > policy.maximum_duration:
        yield (
            f"a duration of {_hours(duration)} is longer than the {_hours(policy.maximum_duration)} that policy"
            f" {policy.name} allows (spec.maximumDuration)"
        )


def _join(words: Collection[str]) -> str:
    return ", ".join(sorted(words)) or "nothing"


def _hours(duration: timedelta) -> str:
    hours = duration.total_seconds() / 3600
    return f"{hours:g}h"
