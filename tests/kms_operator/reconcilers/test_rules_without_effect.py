"""Configurations that can never issue are not Ready, and rules that allow nothing are named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kms.contract import WARNINGS
from kms.pki.ca import AuthorityTemplate, NameConstraints, chain_to_root_pem, self_signed
from kms.pki.certificate import Signer
from kms.resources.authorities import CertificateAuthority
from kms.resources.kinds import CREDENTIALS, POLICIES
from kms.resources.meta import condition
from kms.resources.profiles import CertificateProfile
from kms_operator.plan import Plan
from kms_operator.reconcilers import certificate_policy, certificate_profile, eab_credential
from kms_operator.triggers import find_affected
from tests.support.operated import (
    NOW,
    RELEASE,
    SERVING,
    authority,
    cache_of,
    credential,
    entropy,
    namespace,
    policy,
    profile,
    ready_status,
    snapshot_of,
    stated,
)
from tests.support.pki import DAY, key

CA = authority(status=ready_status())
DNS01 = {"challenges": ["dns-01"]}
ADDRESSES = {"allowed": ["10.0.0.0/8"]}
HOME = namespace("pki")
NOTHING: dict[str, Any] = {"dnsNames": None}


def constrained() -> CertificateAuthority:
    """A CA that may certify names of example.net only."""
    template = AuthorityTemplate(
        common_name="Constrained",
        serial=7,
        not_before=NOW - DAY,
        not_after=NOW + 100 * DAY,
        constraints=NameConstraints(permitted_domains=("example.net",)),
    )
    signer = Signer(self_signed(template, key()), key())
    return authority(status={**ready_status(), "chain": chain_to_root_pem(signer)})


def of_policy(**spec: Any) -> Plan:
    return certificate_policy.plan(policy(**spec), snapshot_of(), now=NOW, entropy=entropy())


def of_profile(one: CertificateProfile, ca: CertificateAuthority = CA, **spec: Any) -> Plan:
    return certificate_profile.plan(one, snapshot_of(one, ca, policy(**spec), SERVING), now=NOW, entropy=entropy())


def of_credential(spec: dict[str, Any], *, acme: dict[str, Any] | None = None, **rules: Any) -> Plan:
    one, its = credential(spec=spec), profile(acme=acme, status=ready_status())
    return eab_credential.plan(one, snapshot_of(one, its, policy(**rules), CA, HOME), now=NOW, entropy=entropy())


def warning(plan: Plan) -> str:
    """The message of the condition Warnings; empty without it."""
    status: Any = plan.status
    found = condition(status.conditions, WARNINGS)
    assert found is None or found.status == "True"
    return found.message if found else ""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (NOTHING, "no name is allowed"),
        ({"dnsNames": {"allowed": []}}, "no name is allowed"),
        ({"dnsNames": {"allowed": ["a.example.com"], "denied": ["**.example.com"]}}, 'is denied by "**.example.com"'),
        ({"dnsNames": {"allowed": ["*.123"]}}, "it ends in a number"),
        ({"dnsNames": {"allowed": [f"{'a' * 64}.example.com"]}}, "a label is longer than 63 characters"),
        ({"dnsNames": {"allowed": [f"*{'a' * 64}.example.com"]}}, "a label is longer than 63 characters"),
        ({"dnsNames": {"allowed": ["-a.example.com"]}}, 'a label begins or ends with "-"'),
        ({"dnsNames": {"allowed": ["*-.example.com"]}}, 'a label begins or ends with "-"'),
        ({"dnsNames": {"allowed": ["*.a.com"], "required": ["www.b.com"]}}, '"www.b.com" is required'),
        ({"dnsNames": {"allowed": ["*.a.com"], "denied": ["w*.a.com"], "required": ["www.a.com"]}}, "is required"),
        ({"dnsNames": {"allowed": ["**"], "required": ["a.b", "b.b"]}, "maximumNames": 1}, "2 names are required"),
        ({**NOTHING, "ipAddresses": {"allowed": ["10.0.0.0/8"], "denied": ["10.0.0.0/9", "10.128.0.0/9"]}}, "denied"),
        ({"ipAddresses": {"allowed": ["10.0.0.0/8"], "required": ["192.0.2.0/24"]}}, "an address of 192.0.2.0/24"),
        ({"usages": {"allowed": ["server auth"], "required": ["client auth"]}}, '"client auth" is not allowed'),
        ({"usages": {"allowed": ["server auth"], "denied": ["server auth"]}}, "no usage is allowed"),
        ({"keyAlgorithms": ["Ed25519"], "signatureAlgorithms": ["ECDSA-SHA256"]}, "no key is allowed"),
        ({"subject": {"organizations": {"allowed": ["A"], "required": ["B"]}}}, '"B" is required and not allowed'),
        ({"subject": {"commonName": {"allowed": ["**"], "required": ["a.example.net"]}}}, "matches no name"),
        ({"subject": {"organizations": {"requested": "Require", "denied": ["**"]}}}, "a value is required, and none"),
        ({"subject": {"commonName": {"requested": "Require", "denied": ["**"]}}}, "a value is required, and none"),
        ({"subject": {"commonName": {"requested": "Require", "allowed": ["a.example.net"]}}}, "is an allowed name"),
        ({"subject": {"countries": {"requested": "Require", "allowed": ["Germany"]}}}, "a value is required, and none"),
        ({"subject": {"countries": {"allowed": ["**"], "required": ["Germany"]}}}, "must be codes of two letters"),
        ({"subject": {"organizations": {"allowed": ["**"], "required": ["x" * 65]}}}, "must have 1 to 64 characters"),
        (
            {"subject": {"commonName": {"allowed": ["**"], "required": ["a.apps.example.com", "b.apps.example.com"]}}},
            "no common name matches both",
        ),
        (
            {"dnsNames": {"allowed": ["**"], "required": ["**.a.com", "*.b.com"]}, "maximumNames": 1},
            "2 names are requi",
        ),
        (
            {
                "dnsNames": {"allowed": ["**"], "required": ["**.a.com"]},
                "ipAddresses": {**ADDRESSES, "required": ["10.0.0.0/16", "10.1.0.0/16", "10.0.0.0/8"]},
                "maximumNames": 2,
            },
            "spec.dnsNames.required and spec.ipAddresses.required: 3 names are required",
        ),
    ],
)
def test_a_policy_under_which_nothing_can_be_issued_is_not_ready(spec: dict[str, Any], message: str) -> None:
    plan = of_policy(**spec)
    assert (stated(plan).status, stated(plan).reason) == ("False", "NothingAllowed")
    assert message in stated(plan).message
    under = of_profile(profile(), **spec)
    assert stated(under).status == "False"
    assert stated(under).reason in {"NothingAllowed", "PolicyViolated"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"dnsNames": {"allowed": ["*"]}}, 'spec.dnsNames.allowed: "*" matches names of a single label only'),
        (
            {"dnsNames": {"allowed": ["a.b.com", "b.com"], "denied": ["*.b.com"]}},
            'spec.dnsNames.allowed: "a.b.com" is denied by "*.b.com" (spec.dnsNames.denied)',
        ),
        ({"dnsNames": {"allowed": ["-a.b.com", "b.com"]}}, '"-a.b.com" matches no DNS name'),
        ({"ipAddresses": {**ADDRESSES, "denied": ["10.0.0.0/7"]}}, "all addresses of 10.0.0.0/8 are denied"),
        ({"usages": {"allowed": ["server auth", "any"], "denied": ["any"]}}, '"any" is denied'),
        (
            {"keyAlgorithms": ["ECDSA-P256", "Ed25519"], "signatureAlgorithms": ["ECDSA-SHA256"]},
            "Ed25519 keys sign no request",
        ),
        ({"subject": {"organizations": {"allowed": ["A", "B"], "denied": ["a"]}}}, '"A" is denied by "a"'),
        (
            {"subject": {"countries": {"allowed": ["DE", "Germany"]}}},
            '"Germany" matches no value that can be',
        ),
        ({"subject": {"organizations": {"allowed": ["DE", "*a\n"]}}}, '"*a\\n" matches no value that can be certified'),
        ({"subject": {"organizations": {"allowed": ["DE", " "]}}}, '" " matches no value that can be certified'),
        ({"subject": {"organizations": {"allowed": ["DE", f"*{'x' * 65}"]}}}, "matches no value that can be certified"),
    ],
)
def test_rules_without_effect_are_named_and_the_policy_stays_ready(spec: dict[str, Any], message: str) -> None:
    plan = of_policy(**spec)
    assert stated(plan).status == "True"
    assert message in warning(plan)
    assert [each.type for each in plan.events] == ["Normal", "Warning"]


@pytest.mark.parametrize(
    "spec",
    [
        {"dnsNames": {"allowed": ["**.a.com"], "denied": ["x.a.com"], "wildcards": "Allow"}},
        {"dnsNames": {"allowed": ["**"], "required": ["**.a.com", "x*.a.com", "*y.a.com"]}, "maximumNames": 1},
        {"ipAddresses": {**ADDRESSES, "required": ["10.0.0.0/16", "10.0.0.0/8"]}, "maximumNames": 1},
        {"subject": {"commonName": {"requested": "Require", "allowed": ["x.**"], "required": ["**.com", "x.*.**"]}}},
        {"subject": {"countries": {"requested": "Require", "allowed": ["D*"], "required": ["*E"]}}},
        {"subject": {"organizations": {"requested": "Require", "allowed": [f"{'x' * 64}*"], "denied": ["y"]}}},
        {
            "subject": {"commonName": {"requested": "Require", "allowed": ["*.a.com"], "required": ["*.a.com"]}},
            "dnsNames": {"allowed": ["a.com"], "wildcards": "Allow"},
        },
        {"subject": {"commonName": {"requested": "Require"}}, "dnsNames": {"allowed": []}, "ipAddresses": ADDRESSES},
    ],
)
def test_a_policy_without_contradictions_has_no_warning(spec: dict[str, Any]) -> None:
    plan = of_policy(**spec)
    assert (stated(plan).status, warning(plan)) == ("True", "")


def test_what_was_found_in_a_policy_stays_when_its_rules_are_no_longer_cached() -> None:
    first = of_policy(dnsNames={"allowed": ["*"]})
    unused = policy(status=msgspec.to_builtins(first.status))
    again = certificate_policy.plan(unused, snapshot_of(unused), now=NOW, entropy=entropy())
    assert warning(again) == warning(first) != ""


@pytest.mark.parametrize(
    ("acme", "spec", "message"),
    [
        (DNS01, {**NOTHING, "ipAddresses": ADDRESSES}, "no offered challenge proves control of one"),
        (DNS01, {"ipAddresses": {**ADDRESSES, "required": ["10.0.0.0/16"]}}, "an address of 10.0.0.0/16 is required"),
    ],
)
def test_a_profile_that_can_never_issue_is_not_ready(acme: dict[str, Any], spec: dict[str, Any], message: str) -> None:
    plan = of_profile(profile(acme=acme), **spec)
    assert (stated(plan).status, stated(plan).reason) == ("False", "NothingAllowed")
    assert message in stated(plan).message


@pytest.mark.parametrize(
    ("acme", "spec", "message"),
    [
        (DNS01, {"ipAddresses": ADDRESSES}, "policy pki/web allows IP addresses (spec.ipAddresses), and no offered"),
        ({}, {"dnsNames": {"allowed": ["**.a.com"], "wildcards": "Allow"}}, "allows wildcards (spec.dnsNames.wildcard"),
        (
            {
                "allowedNamespaces": {
                    "names": {"dnsNames": {"allowed": ["*.{namespace}.svc", "{namespace}.apps.example.com"]}}
                }
            },
            {},
            'spec.enrollment.acme.allowedNamespaces.names.dnsNames.allowed: "*.{namespace}.svc" is outside of the',
        ),
    ],
)
def test_a_part_of_a_profile_without_effect_is_named(acme: dict[str, Any], spec: dict[str, Any], message: str) -> None:
    plan = of_profile(profile(acme=acme), **spec)
    assert stated(plan).status == "True"
    assert message in warning(plan)


def test_names_that_the_ca_must_not_certify_are_named() -> None:
    plan = of_profile(profile(), constrained())
    assert (stated(plan).status, stated(plan).reason) == ("False", "NothingAllowed")
    assert (
        'not permitted by the nameConstraints of CertificateAuthority pki/issuing ("CN=Constrained")'
        in stated(plan).message
    )
    mixed = of_profile(profile(), constrained(), dnsNames={"allowed": ["*.apps.example.com", "*.example.net"]})
    assert stated(mixed).status == "True"
    assert '"*.apps.example.com"' in warning(mixed)
    assert '"*.example.net"' not in warning(mixed)


def test_a_profile_that_asks_for_no_proof_needs_no_challenge_for_addresses() -> None:
    plan = of_profile(profile(acme={**DNS01, "ownershipValidation": "Skipped"}), ipAddresses=ADDRESSES)
    assert "no offered challenge" not in stated(plan).message


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"dnsNames": {"allowed": ["www.example.org"]}}, '"www.example.org" is outside of the names that the profile'),
        ({"dnsNames": {"allowed": ["*.apps.example.com"], "denied": ["**.example.com"]}}, "is denied by"),
        ({"dnsNames": {"allowed": ["*.apps.example.com"], "required": ["x.example.org"]}}, "is required"),
        ({"dnsNames": {"allowed": []}}, "spec.names allows no name"),
    ],
)
def test_a_credential_that_entitles_to_nothing_is_not_ready_and_keeps_its_key(
    names: dict[str, Any], message: str
) -> None:
    plan = of_credential({"names": names})
    status: Any = plan.status
    assert (stated(plan).status, stated(plan).reason) == ("False", "NothingAllowed")
    assert message in stated(plan).message
    assert status.key_id is not None
    assert len(plan.apply) == 2


@pytest.mark.parametrize(
    ("names", "rules", "message"),
    [
        (
            {"dnsNames": {"allowed": ["shop.apps.example.com"]}},
            {"dnsNames": {"allowed": ["*.apps.example.com"], "required": ["blog.apps.example.com"]}},
            'allows no name that matches "blog.apps.example.com", which the policy requires',
        ),
        (
            {"dnsNames": {"allowed": ["**"], "denied": ["b*.apps.example.com"]}},
            {"dnsNames": {"allowed": ["*.apps.example.com"], "required": ["blog.apps.example.com"]}},
            'allows no name that matches "blog.apps.example.com", which the policy requires',
        ),
        (
            {"ipAddresses": {"allowed": ["10.1.0.0/16"]}},
            {"ipAddresses": {**ADDRESSES, "required": ["10.2.0.0/16"]}},
            "allows no address of 10.2.0.0/16, which the policy requires",
        ),
        (
            {"dnsNames": {"allowed": ["**"], "required": ["shop.apps.example.com"]}},
            {"dnsNames": {"allowed": ["*.apps.example.com"], "required": ["blog.*.example.com"]}, "maximumNames": 1},
            "2 names are required in every certificate, and spec.maximumNames of the policy allows 1",
        ),
    ],
)
def test_a_credential_that_cannot_meet_what_the_policy_requires_is_not_ready(
    names: dict[str, Any], rules: dict[str, Any], message: str
) -> None:
    plan = of_credential({"names": names}, **rules)
    assert (stated(plan).status, stated(plan).reason) == ("False", "NothingAllowed")
    assert message in stated(plan).message


def test_names_of_a_credential_that_the_policy_denies_are_named() -> None:
    rules = {"dnsNames": {"allowed": ["*.apps.example.com"], "denied": ["admin*.apps.example.com"]}}
    names = ["admin.apps.example.com", "shop.apps.example.com"]
    some = of_credential({"names": {"dnsNames": {"allowed": names}}}, **rules)
    assert stated(some).status == "True"
    message = '"admin.apps.example.com" is denied by "admin*.apps.example.com" of the policy (spec.dnsNames.denied)'
    assert warning(some) == f"spec.names.dnsNames.allowed: {message}"
    none = of_credential({"names": {"dnsNames": {"allowed": names[:1]}}}, **rules)
    assert (stated(none).status, stated(none).reason) == ("False", "NothingAllowed")
    assert message in stated(none).message
    granted = {"allowedNamespaces": {"names": {"dnsNames": {"allowed": names[:1]}}}}
    assert message in stated(of_credential({}, acme=granted, **rules)).message


def test_names_of_a_credential_outside_of_the_policy_are_named() -> None:
    allowed = {"allowed": ["shop.apps.example.com", "www.example.org"]}
    plan = of_credential({"names": {"dnsNames": allowed, "ipAddresses": {"allowed": ["192.0.2.0/24"]}}})
    assert stated(plan).status == "True"
    assert 'spec.names.dnsNames.allowed: "www.example.org" is outside' in warning(plan)
    assert "spec.names.ipAddresses.allowed: 192.0.2.0/24 is outside" in warning(plan)
    assert "shop.apps.example.com" not in warning(plan)


def test_names_of_a_credential_outside_of_those_of_its_namespace_are_named() -> None:
    granted = {"allowedNamespaces": {"names": {"dnsNames": {"allowed": ["shop.apps.example.com"]}}}}
    plan = of_credential({"names": {"dnsNames": {"allowed": ["blog.apps.example.com"]}}}, acme=granted)
    assert (stated(plan).status, stated(plan).reason) == ("False", "NothingAllowed")


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["*.{namespace}.svc"], '"*.pki.svc" is outside of the names that the profile can certify'),
        (["*.{labels.team}.apps.example.com"], "spec.enrollment.acme.allowedNamespaces.names allows no name"),
    ],
    ids=["outside of the policy", "without a label"],
)
@pytest.mark.parametrize("spec", [{}, {"names": {"dnsNames": {"allowed": ["a.apps.example.com"]}}}])
def test_a_credential_whose_namespace_gets_no_name_is_not_ready(
    names: list[str], why: str, spec: dict[str, Any]
) -> None:
    granted = {"allowedNamespaces": {"names": {"dnsNames": {"allowed": names}}}}
    plan = of_credential(spec, acme=granted)
    assert (stated(plan).status, stated(plan).reason) == ("False", "NothingAllowed")
    assert "CertificateProfile pki/web allows the clients of namespace pki no name: " in stated(plan).message
    assert why in stated(plan).message


def test_a_credential_whose_namespace_gets_some_names_is_ready() -> None:
    granted = {"allowedNamespaces": {"names": {"dnsNames": {"allowed": ["*.{namespace}.svc", "a.apps.example.com"]}}}}
    plan = of_credential({}, acme=granted)
    assert (stated(plan).status, warning(plan)) == ("True", "")


def test_a_pattern_that_stands_for_another_one_is_named_as_it_was_written() -> None:
    written = ["{namespace}.svc", "{labels.team}.svc", "a.apps.example.com"]
    acme = {"allowedNamespaces": {"names": {"dnsNames": {"allowed": written}}}}
    assert all(f'"{each}" is outside' in warning(of_profile(profile(acme=acme))) for each in written[:2])


def test_a_profile_with_a_policy_that_allows_nothing_does_not_call_the_policy_ready() -> None:
    plan = of_profile(profile(), **NOTHING)
    status: Any = plan.status
    resolved = condition(status.conditions, "ResolvedRefs")
    assert resolved is not None
    assert resolved.message == "the issuing CA is ready, and the policy exists"


def test_an_order_profile_that_the_directory_does_not_have_is_named() -> None:
    plan = of_credential({"profiles": ["short"]})
    assert stated(plan).status == "True"
    assert 'spec.profiles: "short" is no order profile of CertificateProfile pki/web' in warning(plan)


def test_a_changed_policy_has_credentials_with_names_checked_again() -> None:
    narrowing, other = credential("narrow", spec={"names": {"dnsNames": {"allowed": ["**"]}}}), credential("other")
    cache = cache_of(profile(), policy(), narrowing, other)
    affected = {request for request, _ in find_affected(POLICIES, policy(), cache, release=RELEASE)}
    assert {each.name for each in affected if each.reconciler == CREDENTIALS.plural} == {"narrow"}


@pytest.mark.parametrize(
    "rule",
    [
        {"names": {"dnsNames": {"allowed": ["a.example.com"]}}},
        {"settings": [{"namespace": "pki", "names": {"dnsNames": {"allowed": ["a.example.com"]}}}]},
    ],
)
def test_a_changed_policy_has_credentials_of_a_profile_with_names_checked_again(rule: dict[str, Any]) -> None:
    cache = cache_of(profile(acme={"allowedNamespaces": rule}), policy(), credential("other"))
    affected = {request for request, _ in find_affected(POLICIES, policy(), cache, release=RELEASE)}
    assert {each.name for each in affected if each.reconciler == CREDENTIALS.plural} == {"other"}
