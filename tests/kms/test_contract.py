from typing import Literal

import pytest

from kms.contract import Program, directory_url, lease_name, may_offer, objection_to_skipping
from kms.pki.policy import Policy
from kms.resources.compile import compile_policy
from kms.resources.meta import ObjectMeta
from kms.resources.policies import CertificatePolicy, DNSNameRules, PolicySpec, ValueRules
from kms.resources.profiles import AcmeEnrollment


def policy(*allowed: str, networks: tuple[str, ...] = ()) -> Policy:
    spec = PolicySpec(dns_names=DNSNameRules(allowed=allowed), ip_addresses=ValueRules(allowed=networks))
    return compile_policy(CertificatePolicy(metadata=ObjectMeta(name="servers", namespace="pki"), spec=spec))


LISTING = policy("*.example.com")
EVERYTHING = policy("*")


def test_each_program_of_each_installation_has_a_lease_of_its_own() -> None:
    programs: tuple[Program, ...] = ("server", "operator")
    names = {lease_name(service, program) for service in ("one", "two") for program in programs}
    assert names == {"one-server", "one-operator", "two-server", "two-operator"}


def test_a_directory_is_below_its_profile() -> None:
    assert directory_url("https://acme.example.com", "pki", "web") == "https://acme.example.com/acme/pki/web/directory"


@pytest.mark.requirement("SEC50")
@pytest.mark.parametrize(
    ("binding", "rules", "reason"),
    [
        ("Required", LISTING, None),
        ("Optional", LISTING, "externalAccountBinding: Required"),
        ("Disabled", LISTING, "externalAccountBinding: Required"),
        ("Required", EVERYTHING, "policy pki/servers allows none or all"),
        ("Required", policy(), "policy pki/servers allows none or all"),
        ("Required", policy("**"), "policy pki/servers allows none or all"),
        ("Required", policy("shop.example.com", "*e*"), 'policy pki/servers allows "*e*", which does not end in two'),
        ("Required", policy("**.com"), 'allows "**.com", which does not end in two literal labels'),
        ("Required", policy("*example.com"), 'allows "*example.com", which does not end in two literal labels'),
        ("Required", policy("www.*"), 'allows "www.*", which does not end in two literal labels'),
        ("Required", policy("www.**.com"), 'allows "www.**.com", which does not end in two literal labels'),
        ("Required", policy("localhost", "db.internal", "**.example.com", "web*.**.example.com"), None),
        ("Required", policy(networks=("0.0.0.0/1",)), "allows 0.0.0.0/1, which is wider than /8"),
        ("Required", policy("a.example.com", networks=("10.0.0.0/8", "10.0.0.0/7")), "allows 10.0.0.0/7, which is"),
        ("Required", policy(networks=("2000::/3",)), "allows 2000::/3, which is wider than /32"),
        ("Required", policy(networks=("::/0",)), "allows none or all"),
        ("Required", policy(networks=("10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32")), None),
    ],
)
def test_only_known_clients_skip_validation_and_only_for_listed_names(
    binding: Literal["Required", "Optional", "Disabled"], rules: Policy, reason: str | None
) -> None:
    acme = AcmeEnrollment(external_account_binding=binding, ownership_validation="Skipped")
    objection = objection_to_skipping(acme, rules)
    assert objection == reason if reason is None else reason in (objection or "")
    assert objection_to_skipping(AcmeEnrollment(external_account_binding=binding), rules) is None


def test_a_directory_that_skips_validation_offers_only_policies_that_list_names() -> None:
    skipping, validating = AcmeEnrollment(ownership_validation="Skipped"), AcmeEnrollment()
    assert [may_offer(skipping, each) for each in (LISTING, EVERYTHING, None)] == [True, False, False]
    assert all(may_offer(validating, each) for each in (LISTING, EVERYTHING, None))
