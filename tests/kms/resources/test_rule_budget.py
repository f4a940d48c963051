"""The largest rules that a tenant may write, and what they cost the server that all share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kms.pki.names import Name, dns_name, ip_address
from kms.pki.policy import Narrowing, Policy, name_violations
from kms.resources.compile import RulesTooCostly, compile_narrowing, compile_policy
from kms.resources.credentials import NameRules
from kms.resources.meta import ObjectMeta
from kms.resources.policies import AttributeRules, CertificatePolicy, DNSNameRules, PolicySpec, SubjectRules, ValueRules
from kms.resources.rule_budget import MAXIMUM_RULES
from tests.support.processor import least_time

pytestmark = pytest.mark.requirement("SEC41", "SEC74")

LONGEST = 0.02
NAMES = 100


def policy(spec: PolicySpec) -> Policy:
    return compile_policy(CertificatePolicy(metadata=ObjectMeta(name="web", namespace="pki"), spec=spec))


def allowing(patterns: Sequence[str], *, maximum_names: int = NAMES) -> Policy:
    return policy(PolicySpec(dns_names=DNSNameRules(allowed=tuple(patterns)), maximum_names=maximum_names))


def denying(patterns: Sequence[str]) -> Policy:
    rules = DNSNameRules(allowed=("**",), denied=tuple(patterns), wildcards="Allow")
    return policy(PolicySpec(dns_names=rules, maximum_names=NAMES))


def narrowing_to(patterns: Sequence[str]) -> Narrowing:
    return compile_narrowing(NameRules(dns_names=DNSNameRules(allowed=tuple(patterns))), "shop/ci")


def fits(make: Callable[[], object]) -> bool:
    try:
        make()
    except RulesTooCostly:
        return False
    return True


def largest(make: Callable[[Sequence[str]], object], patterns: Sequence[str]) -> Sequence[str]:
    """As many of the patterns as are admitted."""
    low, high = 0, len(patterns)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(lambda: make(patterns[:middle])) else (low, middle - 1)  # noqa: B023 - called at once
    return patterns[:low]


fronts = st.lists(st.sampled_from(["*", "**", "a", "a*", "*a", "*a*", "*a*a*a*a*a*a*", "b*"]), max_size=60)
ends = st.sampled_from(["", ".com", ".apps.example.com", ".d" * 40])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fronts, ends, st.sampled_from(["a", "aaaa", "a" * 63]), st.booleans())
def test_the_largest_rules_that_are_admitted_take_less_than_20_ms(
    front: list[str], end: str, label: str, wildcard: bool
) -> None:
    patterns = [".".join((*front, f"*z{number}*"))[-(253 - len(end)) :].lstrip(".*") + end for number in range(500)]
    labels = ".".join([label] * max(1, (244 - len(end)) // (len(label) + 1)))
    names = [dns_name(f"{'*.' * wildcard}{labels}.{number:03}a{end or '.a'}") for number in range(NAMES)]
    rules = denying(largest(denying, patterns))
    narrowing = narrowing_to(largest(narrowing_to, patterns))
    taken = least_time(lambda: name_violations(names, rules, narrowing))
    assert taken < LONGEST


def test_rules_of_the_usual_kind_are_admitted_in_any_number_and_cost_hardly_anything() -> None:
    patterns = [f"{star}.team{number}.apps.example.com" for number in range(250) for star in ("*", "**")]
    rules = DNSNameRules(allowed=tuple(patterns), denied=tuple(each.replace("*", "secret") for each in patterns[::2]))
    compiled = policy(PolicySpec(dns_names=rules, maximum_names=NAMES))
    names = [dns_name(f"a.team{number}.apps.example.com") for number in range(NAMES)]
    assert name_violations(names, compiled, narrowing_to(patterns)) == ()
    assert least_time(lambda: name_violations(names, compiled, narrowing_to(patterns))) < LONGEST


def test_patterns_of_different_domains_do_not_add_up() -> None:
    compiled = allowing([f"web-*.team{number}.example.com" for number in range(500)])
    names = [dns_name(f"web-{number}.team{number}.example.com") for number in range(NAMES)]
    assert name_violations(names, compiled, None) == ()
    assert least_time(lambda: name_violations(names, compiled, None)) < LONGEST


def test_as_many_networks_as_are_admitted_cost_hardly_anything() -> None:
    blocks = tuple(f"2001:db8:{number:x}::/{48 + number % 80}" for number in range(500))
    rules = ValueRules(allowed=blocks, denied=blocks)
    addresses: list[Name] = [ip_address(f"2001:db8:{number:x}:1::1") for number in range(NAMES)]
    compiled = policy(PolicySpec(ip_addresses=rules, maximum_names=NAMES))
    assert least_time(lambda: name_violations(addresses, compiled, None)) < LONGEST
    assert least_time(lambda: policy(PolicySpec(ip_addresses=rules))) < LONGEST


@pytest.mark.parametrize(
    "patterns",
    [
        [f"*.n{number}.example.com" for number in range(1190)],
        [f"web*.n{number}.example.com" for number in range(1190)],
        ["*a" * 5 + f"*{number}.n{number}" for number in range(1190)],
        ["a*." + "d." * (number % 110) + f"n{number}" for number in range(550)],
        ["*." + "d." * 110 + f"n{number}" for number in range(280)],
    ],
    ids=lambda patterns: patterns[-1][:8],
)
def test_rules_are_compiled_in_a_moment_whatever_their_form(patterns: list[str]) -> None:
    third = len(patterns) // 3
    rules = DNSNameRules(
        allowed=tuple(patterns[:third]),
        denied=tuple(patterns[third : 2 * third]),
        required=tuple(patterns[2 * third :]),
    )
    assert least_time(lambda: policy(PolicySpec(dns_names=rules))) < LONGEST


@pytest.mark.parametrize(
    ("spec", "field", "advice"),
    [
        (
            PolicySpec(dns_names=DNSNameRules(allowed=tuple(f"{number}." + "d." * 120 + "e" for number in range(450)))),
            "spec.dnsNames.allowed",
            "write fewer or shorter ones",
        ),
        (
            PolicySpec(dns_names=DNSNameRules(allowed=tuple(f"*w*{number}*.example.com" for number in range(500)))),
            "spec.dnsNames.allowed",
            'lower spec.maximumNames (100), or write fewer patterns with the same ending; the costliest is "*w*',
        ),
        (
            PolicySpec(dns_names=DNSNameRules(denied=tuple("**." * 60 + f"b{number}" for number in range(200)))),
            "spec.dnsNames.denied",
            'write shorter ones, above all "**.**.',
        ),
        (
            PolicySpec(
                subject=SubjectRules(
                    organizations=AttributeRules(required=tuple("*a" * 50 + f"*{number}" for number in range(100)))
                )
            ),
            "spec.subject.organizations.required",
            "fewer patterns with the same ending",
        ),
        (
            PolicySpec(
                dns_names=DNSNameRules(allowed=tuple(f"{number}.example.com" for number in range(500))),
                ip_addresses=ValueRules(allowed=tuple(f"10.0.{number // 256}.{number % 256}" for number in range(700))),
            ),
            "spec.ipAddresses.allowed",
            f"1201 patterns and networks are more than the {MAXIMUM_RULES}",
        ),
    ],
)
def test_rules_beyond_the_budget_are_refused_with_what_to_shorten(spec: PolicySpec, field: str, advice: str) -> None:
    with pytest.raises(RulesTooCostly) as refused:
        policy(spec)
    assert refused.value.field == field
    assert advice in refused.value.message
    assert len(refused.value.message) < 500


def test_fewer_names_may_be_compared_with_costlier_patterns() -> None:
    patterns = [f"*w*{number}*.example.com" for number in range(200)]
    assert not fits(lambda: allowing(patterns))
    assert fits(lambda: allowing(patterns, maximum_names=10))


def test_a_credential_beyond_its_budget_is_refused() -> None:
    patterns = tuple(f"*w*{number}*.example.com" for number in range(500))
    with pytest.raises(RulesTooCostly) as refused:
        narrowing_to(patterns)
    assert refused.value.field == "spec.names.dnsNames.allowed"
    assert "maximumNames" not in refused.value.message
