from typing import Literal

import pytest

from kms.contract import Program, directory_url, lease_name, may_offer, objection_to_skipping
from kms.pki.policy import Policy
from kms.resources.compile import compile_policy
from kms.resources.meta import ObjectMeta
from kms.resources.policies import CertificatePolicy, DNSNameRules, PolicySpec
from kms.resources.profiles import AcmeEnrollment


def policy(*allowed: str) -> Policy:
    spec = PolicySpec(dns_names=DNSNameRules(allowed=allowed))
    return compile_policy(CertificatePolicy(metadata=ObjectMeta(name="servers", namespace="pki"), spec=spec))


LISTING = policy("*.example.com")
EVERYTHING = policy("*")


def test_each_program_of_each_installation_has_a_lease_of_its_own() -> None:
    programs: tuple[Program, ...] = ("server", "operator")
    names = {lease_name(service, program) for service in ("one", "two") for program in programs}
    assert names == {"one-server", "one-operator", "two-server", "two-operator"}


def test_a_directory_is_below_its_profile() -> None:
    assert directory_url("https://acme.example.com", "pki", "web") == "https://acme.example.com/acme/pki/web/directory"


@pytest.mark.parametrize(
    ("binding", "rules", "reason"),
    [
        ("Required", LISTING, None),
        ("Optional", LISTING, "externalAccountBinding: Required"),
        ("Disabled", LISTING, "externalAccountBinding: Required"),
        ("Required", EVERYTHING, "policy pki/servers allows none or all"),
        ("Required", policy(), "policy pki/servers allows none or all"),
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
