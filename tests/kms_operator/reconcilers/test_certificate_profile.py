"""CertificateProfiles: what they need is there, what they promise can be kept, and clients find them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from kms.resources.core import Secret
from kms.resources.kinds import AUTHORITIES, POLICIES, SECRETS
from kms.resources.meta import LocalRef
from kms.resources.profiles import CertificateProfile
from kms_operator.plan import REREAD, Plan
from kms_operator.reconcilers import certificate_profile
from kms_operator.reconcilers.issuer_change import trusted_roots
from kms_operator.settings import OperatorSettings
from kms_operator.snapshot import Read
from tests.support.operated import (
    NOW,
    RELEASE,
    SERVING,
    SETTINGS,
    authority,
    entropy,
    event_reasons,
    names,
    objects,
    policy,
    profile,
    ready_status,
    secret,
    snapshot_of,
    stated,
    stored,
    unread,
)

CA = authority(status={**ready_status(), "chain": "the chain\n"})


OPEN = replace(SETTINGS, open_profiles_from=("pki",))


def reconciled(one: CertificateProfile, *others: Any, settings: OperatorSettings = OPEN) -> Plan:
    return certificate_profile.plan(one, snapshot_of(one, *others, settings=settings), now=NOW, entropy=entropy())


def directory_of(one: CertificateProfile) -> Secret:
    """The Secret for users as the operator wrote it."""
    return certificate_profile.directory_secret(one, trusted_roots(one, CA, snapshot_of(), now=NOW), snapshot_of())


@pytest.mark.requirement("C15")
def test_a_profile_whose_references_are_ready_is_ready_and_published() -> None:
    plan = reconciled(profile(), CA, policy(), SERVING)
    assert {stated(plan, each).status for each in ("Ready", "ResolvedRefs", "OwnershipValidated", "Published")} == {
        "True"
    }
    status: Any = plan.status
    assert status.directory_url == "https://acme.example.com/acme/pki/web/directory"
    (directory,) = objects(plan.apply)
    assert directory.data == {
        "directory-url": b"https://acme.example.com/acme/pki/web/directory",
        "ca.crt": b"the serving CA",
        "chain.crt": b"the chain\n",
    }
    assert directory.metadata.owner_references[0].uid == "profile-web"
    assert (names(objects(plan.apply)), event_reasons(plan)) == (["pki/web-acme"], ["Ready"])


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ((policy(),), "IssuerNotFound"),
        ((CA,), "PolicyNotFound"),
        ((authority(status=ready_status("KeyLost", "False")), policy()), "IssuerNotReady"),
        ((CA, policy(ipAddresses={"allowed": ["nonsense"]})), "PolicyInvalid"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(there: tuple[Any, ...], reason: str) -> None:
    plan = reconciled(profile(), *there)
    assert [stated(plan, each).reason for each in ("Ready", "ResolvedRefs")] == [reason, reason]
    assert stated(plan).status == "False"
    assert "pki/" in stated(plan).message


@pytest.mark.requirement("M48", "SEC10")
@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (profile(certificate={"duration": "soon"}), "InvalidDuration"),
        (profile(certificate={"duration": "9999h"}), "PolicyViolated"),
        (profile(certificate={"usages": ["code signing"]}), "PolicyViolated"),
        (profile(acme={"orderLifetime": "soon"}), "InvalidDuration"),
        (profile(acme={"authorizationLifetime": "soon"}), "InvalidDuration"),
        (profile(enrolls=False), "NoEnrollmentMethod"),
    ],
)
def test_what_cannot_be_kept_is_not_promised(broken: CertificateProfile, reason: str) -> None:
    plan = reconciled(broken, CA, policy())
    assert (stated(plan).reason, stated(plan, "ResolvedRefs").status) == (reason, "True")


@pytest.mark.requirement("SEC50")
@pytest.mark.parametrize(
    ("binding", "rules", "allowed"),
    [
        ("Required", {}, True),
        ("Optional", {}, False),
        ("Disabled", {}, False),
        ("Required", {"dnsNames": {"allowed": ["**"]}}, False),
        ("Required", {"dnsNames": {"allowed": ["*.*"]}}, False),
        ("Required", {"dnsNames": {"allowed": ["shop.example.com", "**"]}}, False),
        ("Required", {"dnsNames": {"allowed": []}}, False),
        ("Required", {"dnsNames": {"allowed": []}, "ipAddresses": {"allowed": ["10.0.0.0/8"]}}, True),
        ("Required", {"ipAddresses": {"allowed": ["0.0.0.0/0"]}}, False),
    ],
)
def test_proof_of_control_is_skipped_only_for_known_clients_and_listed_names(
    binding: str, rules: dict[str, Any], *, allowed: bool
) -> None:
    """SEC50."""
    skipping = profile(acme={"ownershipValidation": "Skipped", "externalAccountBinding": binding})
    plan = reconciled(skipping, CA, policy(**rules))
    assert (stated(plan).status == "True") is allowed
    assert allowed or stated(plan).reason == "OwnershipValidationRequired"
    assert stated(plan, "OwnershipValidated").reason == "Skipped"


@pytest.mark.requirement("SEC76")
@pytest.mark.parametrize(
    "acme",
    [
        {"externalAccountBinding": "Optional"},
        {"externalAccountBinding": "Disabled"},
        {"ownershipValidation": "Skipped"},
    ],
)
def test_the_administrator_decides_which_namespaces_may_have_open_profiles(acme: dict[str, str]) -> None:
    opened = profile(acme=acme)
    refused = reconciled(opened, CA, policy(), settings=SETTINGS)
    for type_ in ("Ready", "OpenEnrollment"):
        condition = stated(refused, type_)
        assert (condition.status, condition.reason) == ("False", "OpenProfileNotAllowed")
        assert "--open-profiles-from pki" in condition.message
        assert "operator.openProfilesFrom" in condition.message
    assert event_reasons(refused) == ["OpenProfileNotAllowed"]
    for settings in (
        replace(SETTINGS, open_profiles_from=("pki",)),
        replace(SETTINGS, open_profiles_from=("*",)),
        replace(SETTINGS, namespace="pki"),
    ):
        allowed = reconciled(opened, CA, policy(), settings=settings)
        assert (stated(allowed).status, stated(allowed, "OpenEnrollment").status) == ("True", "True")
        assert stated(allowed, "OpenEnrollment").observed_generation == opened.metadata.generation
    elsewhere = reconciled(opened, CA, policy(), settings=replace(SETTINGS, open_profiles_from=("shop",)))
    assert stated(elsewhere).reason == "OpenProfileNotAllowed"


def test_a_profile_that_is_not_open_needs_no_consent() -> None:
    plan = reconciled(profile(), CA, policy(), settings=SETTINGS)
    assert stated(plan).status == "True"
    assert "OpenEnrollment" not in {each.type for each in plan.status.conditions}  # type: ignore[union-attr]


def lending(*names: str, **acme: Any) -> CertificateProfile:
    return profile(acme={"profiles": [{"name": each, "profileRef": {"name": each}} for each in names]} | acme)


@pytest.mark.parametrize(
    ("lent", "reason", "message"),
    [
        ((), "ProfileNotFound", "CertificateProfile pki/short does not exist"),
        ((profile("short"),), "ProfileNotReady", "CertificateProfile pki/short is not ready"),
        (
            (profile("short", status=ready_status("PolicyViolated", "False")),),
            "ProfileNotReady",
            "CertificateProfile pki/short is not ready",
        ),
    ],
)
def test_an_order_profile_that_cannot_be_had_is_told_and_the_directory_works_without_it(
    lent: tuple[Any, ...], reason: str, message: str
) -> None:
    plan = reconciled(lending("short", "good"), CA, policy(), profile("good", status=ready_status()), *lent)
    assert stated(plan).status == "True"
    references = stated(plan, "ResolvedRefs")
    assert (references.status, references.reason) == ("False", reason)
    assert references.message == (f'order profile "short" is not offered (spec.enrollment.acme.profiles): {message}')


def test_order_profiles_that_are_ready_and_the_directorys_own_are_in_order() -> None:
    plan = reconciled(lending("short", "web"), CA, policy(), profile("short", status=ready_status()))
    assert stated(plan, "ResolvedRefs").status == "True"


@pytest.mark.requirement("SEC50")
def test_an_order_profile_for_any_name_is_not_offered_without_proof_of_control() -> None:
    skipping = lending("wide", ownershipValidation="Skipped", externalAccountBinding="Required")
    ready = profile("wide", status=ready_status())
    wide = msgspec.structs.replace(ready, spec=msgspec.structs.replace(ready.spec, policy_ref=LocalRef(name="all")))
    plan = reconciled(skipping, CA, policy(), wide, policy("all", dnsNames={"allowed": ["**"]}))
    assert (stated(plan).status, stated(plan, "ResolvedRefs").reason) == ("True", "OwnershipValidationRequired")
    plan = reconciled(skipping, CA, policy(), wide, policy("all"))
    assert stated(plan, "ResolvedRefs").status == "True"
    plan = reconciled(skipping, CA, policy(), wide, policy("all", ipAddresses={"allowed": ["nonsense"]}))
    assert stated(plan, "ResolvedRefs").status == "False"


def test_a_profile_without_enrollment_has_no_directory() -> None:
    status: Any = reconciled(profile(enrolls=False), CA, policy()).status
    assert status.directory_url is None
    assert [each.type for each in status.conditions] == ["Ready", "ResolvedRefs"]


def test_the_directory_is_published_before_the_ca_is_there() -> None:
    (directory,) = objects(reconciled(profile()).apply)
    assert list(directory.data) == ["directory-url"]


def settled(*others: Any) -> CertificateProfile:
    return profile(status=msgspec.to_builtins(reconciled(profile(), *others).status))


def test_a_published_profile_is_left_alone() -> None:
    one = settled(CA, policy())
    directory = stored(directory_of(one))
    plan = reconciled(one, CA, policy(), directory)
    assert (objects(plan.apply), event_reasons(plan), plan.status) == ((), [], one.status)


def test_a_deleted_or_changed_directory_is_repaired() -> None:
    one = settled(CA, policy())
    directory = stored(directory_of(one))
    assert event_reasons(reconciled(one, CA, policy())) == ["Repaired"]
    directory.data["directory-url"] = b"https://evil.example"
    plan = reconciled(one, CA, policy(), directory)
    assert event_reasons(plan) == ["Repaired"]
    assert objects(plan.apply)[0].data["directory-url"].startswith(b"https://acme.example.com/")


def test_a_secret_of_somebody_else_is_left_alone() -> None:
    plan = reconciled(profile(), CA, policy(), secret("web-acme", data={"mine": b"x"}))
    assert (objects(plan.apply), stated(plan, "Published").reason) == ((), "SecretExists")
    assert stated(plan).status == "True", "clients can enroll all the same"
    assert plan.requeue_at == NOW + REREAD
    assert event_reasons(plan) == ["Ready", "SecretExists"]


@pytest.mark.requirement("C15")
def test_with_a_serving_certificate_from_elsewhere_its_ca_is_what_to_trust() -> None:
    foreign = secret("kms-acme-serving", RELEASE, data={"ca.crt": b"the corporate CA"})
    assert objects(reconciled(profile(), CA, SERVING, foreign).apply)[0].data["ca.crt"] == b"the corporate CA"
    nothing = secret("kms-acme-serving", RELEASE)
    assert "ca.crt" not in objects(reconciled(profile(), CA, SERVING, nothing).apply)[0].data


def test_the_controller_is_told_which_secrets_to_be_sure_of() -> None:
    assert list(certificate_profile.reads(profile(), snapshot_of())) == [
        Read(SECRETS, "pki", "web-acme", optional=True),
        Read(SECRETS, RELEASE, "kms-acme-serving"),
    ]


@pytest.mark.requirement("SEC77", "SEC82")
def test_a_reference_that_cannot_be_read_is_named_with_its_field() -> None:
    for kind, one, others in ((AUTHORITIES, CA, (policy(),)), (POLICIES, policy(), (CA,))):
        snapshot = snapshot_of(profile(), *others, unreadable=[(kind, unread(one, "spec.x"))])
        plan = certificate_profile.plan(profile(), snapshot, now=NOW, entropy=entropy())
        assert (stated(plan).status, stated(plan).reason) == ("False", "Unreadable")
        assert stated(plan).message == (
            f"{kind.kind} pki/{one.metadata.name} cannot be read: spec.x: Invalid RFC3339 encoded datetime"
        )
