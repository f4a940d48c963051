from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from acme_server.api.problems import status_of
from acme_server.model import Profile
from acme_server.orders import policy
from acme_server.orders.admission import MAXIMUM_NAME_CHARACTERS
from acme_server.orders.identifiers import identifier_of
from acme_server.payloads import MAXIMUM_IDENTIFIERS
from acme_server.problems import ProblemType, Refused
from acme_server.settings import ValidationSettings
from acme_server.validation.net.address_filter import AddressFilter
from kms.pki.csr import MAXIMUM_REQUEST
from kms.pki.names import Name, dns_name, ip_address
from kms.pki.policy import Narrowing
from kms.resources.compile import compile_narrowing
from kms.resources.credentials import NameRules
from kms.resources.orders import ChallengeType
from kms.resources.policies import AttributeRules, DNSNameRules, PolicySpec, SubjectRules, ValueRules
from tests.support import pki
from tests.support.acmeorders import order
from tests.support.domain import World

HTTP: tuple[ChallengeType, ...] = ("http-01",)


@pytest.fixture
def profile(world: World) -> Profile:
    return world.profile


def names(*values: str) -> list[Name]:
    return [dns_name(value) for value in values]


def refusal(
    profile: Profile, *values: str, narrowing: Narrowing | None = None, types: tuple[ChallengeType, ...] = HTTP
) -> Refused:
    with pytest.raises(Refused) as caught:
        policy.admit_names(names(*values), profile, narrowing, types)
    return caught.value


@pytest.mark.requirement("M107")
def test_names_that_the_policy_allows_are_admitted(profile: Profile) -> None:
    policy.admit_names(names("www.example.com", "a.b.example.com"), profile, None, HTTP)


@pytest.mark.requirement("M107")
def test_a_refusal_names_the_name_the_rule_and_the_policy(profile: Profile) -> None:
    refused = refusal(profile, "www.example.com", "www.example.org")
    assert refused.type == ProblemType.REJECTED_IDENTIFIER
    assert status_of(refused) == 403
    assert refused.detail == ('DNS name "www.example.org" is not allowed by policy pki/policy (spec.dnsNames.allowed)')
    assert [each.identifier for each in refused.subproblems] == [identifier_of(dns_name("www.example.org"))]


@pytest.mark.requirement("M45", "S46")
def test_every_name_that_is_refused_has_a_subproblem(profile: Profile) -> None:
    refused = refusal(profile, "a.example.org", "b.example.org", "good.example.com")
    assert [each.identifier and each.identifier.value for each in refused.subproblems] == [
        "a.example.org",
        "b.example.org",
    ]
    assert all(each.type == ProblemType.REJECTED_IDENTIFIER for each in refused.subproblems)


def test_what_is_wrong_with_the_names_together_is_told_too(world: World) -> None:
    world.configure(policy=PolicySpec(dns_names=DNSNameRules(allowed=("**.example.com",)), maximum_names=1))
    refused = refusal(world.profile, "a.example.com", "b.example.org")
    assert "spec.maximumNames" in refused.detail
    assert len(refused.subproblems) == 1


@pytest.mark.requirement("SEC49")
def test_the_credential_narrows_the_policy(profile: Profile) -> None:
    rules = compile_narrowing(NameRules(dns_names=DNSNameRules(allowed=("a.example.com",))), "team/cred")
    refused = refusal(profile, "b.example.com", narrowing=rules)
    assert "EAB credential team/cred" in refused.detail


@pytest.mark.requirement("SEC66")
def test_without_a_policy_section_nothing_is_admitted(world: World) -> None:
    world.configure(policy=PolicySpec())
    assert "spec.dnsNames" in refusal(world.profile, "www.example.com").detail


def wildcards(world: World, **acme: Any) -> Profile:
    rules = DNSNameRules(allowed=("**.example.com",), wildcards="Allow")
    world.configure(policy=PolicySpec(dns_names=rules), **acme)
    return world.profile


@pytest.mark.requirement("M107", "M150")
def test_a_wildcard_that_no_challenge_can_prove_is_refused(world: World) -> None:
    profile = wildcards(world)
    refused = refusal(profile, "*.apps.example.com")
    assert "cannot be proven" in refused.detail
    assert "http-01" in refused.detail
    policy.admit_names(names("*.apps.example.com"), profile, None, ("http-01", "dns-01"))


def test_a_name_without_any_challenge_is_refused(profile: Profile) -> None:
    assert "none" in refusal(profile, "www.example.com", types=()).detail


def test_where_ownership_is_not_validated_no_challenge_is_needed(world: World) -> None:
    profile = wildcards(world, ownership_validation="Skipped", external_account_binding="Required")
    policy.admit_names(names("*.apps.example.com"), profile, None, None)


@pytest.mark.requirement("M150", "ALPN-M1")
def test_a_wildcard_has_dns_01_alone() -> None:
    types: tuple[ChallengeType, ...] = ("http-01", "dns-01", "tls-alpn-01")
    assert policy.challenges_for(dns_name("*.example.com"), types) == ("dns-01",)
    assert policy.challenges_for(dns_name("example.com"), types) == types


@pytest.mark.requirement("IP-M5")
@pytest.mark.parametrize("address", ["10.0.0.1", "2001:db8::1"])
def test_an_address_has_every_challenge_but_dns_01(address: str) -> None:
    types: tuple[ChallengeType, ...] = ("http-01", "dns-01", "tls-alpn-01")
    assert policy.challenges_for(ip_address(address), types) == ("http-01", "tls-alpn-01")


@pytest.mark.requirement("IP-M8")
@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "::1", "::", "fe80::1", "ff02::1"]
)
def test_an_address_that_is_nobodys_is_refused_unless_it_is_allowed(world: World, address: str) -> None:
    world.configure(policy=PolicySpec(ip_addresses=ValueRules(allowed=("0.0.0.0/0", "::/0"))))
    default = AddressFilter(ValidationSettings()).objection
    with pytest.raises(Refused, match="is not certified by this server") as caught:
        policy.admit_names([ip_address(address)], world.profile, None, HTTP, default)
    assert caught.value.type == ProblemType.REJECTED_IDENTIFIER
    allowing = AddressFilter(ValidationSettings(allow=(ip_network(address),))).objection
    policy.admit_names([ip_address(address)], world.profile, None, HTTP, allowing)


@pytest.mark.requirement("IP-M8")
def test_addresses_are_admitted_by_the_policys_networks_alone(world: World) -> None:
    rules = ValueRules(allowed=("10.0.0.0/8", "2001:db8::/32"), denied=("10.9.0.0/16",))
    world.configure(policy=PolicySpec(ip_addresses=rules))
    policy.admit_names([ip_address("10.1.2.3"), ip_address("2001:db8::5")], world.profile, None, HTTP)
    for address in ("10.9.0.1", "192.168.0.1", "2001:db9::1"):
        with pytest.raises(Refused, match="ipAddresses"):
            policy.admit_names([ip_address(address)], world.profile, None, HTTP)


def csr_refusal(profile: Profile, ordered: list[str], der: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        policy.admit_request(policy.parse_csr(der), order(*ordered), profile, None)
    assert caught.value.type == ProblemType.BAD_CSR
    return caught.value


@pytest.mark.requirement("M112")
def test_a_request_for_the_names_of_the_order_is_admitted(profile: Profile) -> None:
    der = pki.csr("b.example.com", "A.example.com", common_name="a.example.com")
    policy.admit_request(policy.parse_csr(der), order("a.example.com", "b.example.com"), profile, None)


@pytest.mark.requirement("M112", "SEC28")
def test_names_that_differ_are_told_both_ways(profile: Profile) -> None:
    refused = csr_refusal(profile, ["a.example.com", "b.example.com"], pki.csr("b.example.com", "c.example.com"))
    assert "lacks a.example.com" in refused.detail
    assert "names c.example.com, not in the order" in refused.detail


@pytest.mark.requirement("M112")
def test_a_common_name_counts_as_a_name(profile: Profile) -> None:
    der = pki.csr("a.example.com", common_name="c.example.com")
    assert "c.example.com" in csr_refusal(profile, ["a.example.com"], der).detail


def test_long_differences_are_cut(profile: Profile) -> None:
    der = pki.csr("a.example.com", *[f"x{number}.example.com" for number in range(9)])
    assert "and 4 more" in csr_refusal(profile, ["a.example.com"], der).detail


@pytest.mark.requirement("SEC28")
def test_the_policy_is_applied_to_the_request_again(world: World) -> None:
    profile = world.profile
    world.configure(policy=PolicySpec(dns_names=DNSNameRules(allowed=("other.example.com",))))
    refused = csr_refusal(world.profile, ["a.example.com"], pki.csr("a.example.com"))
    assert "spec.dnsNames.allowed" in refused.detail
    assert refused.subproblems[0].identifier == identifier_of(dns_name("a.example.com"))
    policy.admit_request(policy.parse_csr(pki.csr("a.example.com")), order("a.example.com"), profile, None)


def test_key_and_subject_are_the_policys_business_too(world: World) -> None:
    rules = DNSNameRules(allowed=("**",))
    world.configure(
        policy=PolicySpec(
            dns_names=rules, key_algorithms=("RSA-4096",), subject=SubjectRules(common_name=AttributeRules(allowed=()))
        )
    )
    der = pki.csr("a.example.com", common_name="a.example.com")
    detail = csr_refusal(world.profile, ["a.example.com"], der).detail
    assert "spec.keyAlgorithms" in detail
    assert "spec.subject.commonName" in detail


@pytest.mark.requirement("S114")
def test_what_is_no_request_is_a_bad_csr() -> None:
    with pytest.raises(Refused) as caught:
        policy.parse_csr(b"0\x82")
    assert caught.value.type == ProblemType.BAD_CSR


@pytest.mark.requirement("IP-M6", "SEC28")
def test_an_address_in_the_request_is_not_in_the_order(profile: Profile) -> None:
    der = pki.csr("a.example.com", ip_address("10.0.0.1").value)
    assert "10.0.0.1" in csr_refusal(profile, ["a.example.com"], der).detail


@pytest.mark.requirement("M107", "SEC36")
def test_a_request_for_the_longest_order_is_within_the_limit_of_requests() -> None:
    longest = [f"{number:03}.{'a' * 62}.example.com" for number in range(MAXIMUM_IDENTIFIERS)]
    assert sum(map(len, longest)) <= MAXIMUM_NAME_CHARACTERS < sum(map(len, longest)) + 5 * MAXIMUM_IDENTIFIERS
    rsa_4096 = 2 * 512
    assert len(pki.csr(*longest)) + rsa_4096 + 512 < MAXIMUM_REQUEST


@pytest.mark.requirement("M107")
def test_an_order_whose_names_can_never_be_the_required_common_name_is_refused_at_once(world: World) -> None:
    subject = SubjectRules(common_name=AttributeRules(requested="Require"))
    world.configure(policy=PolicySpec(dns_names=DNSNameRules(allowed=("**.example.com",)), subject=subject))
    long = f"{'a' * 60}.example.com"
    refused = refusal(world.profile, long)
    assert refused.type == ProblemType.REJECTED_IDENTIFIER
    assert "spec.subject.commonName" in refused.detail
    policy.admit_names(names(long, "www.example.com"), world.profile, None, HTTP)
