"""Each finding of the doctor, from a snapshot."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kms.pki.certificate import certificate_pem
from kms.resources.core import Lease, LeaseSpec
from kms.resources.kept import KEPT_UNTIL
from kms.resources.meta import ObjectMeta
from kms.resources.secret_names import COMPONENT, OWNER, OWNER_UID, SIGNING_KEY
from kms_acme.doctor import Finding, Snapshot, examine
from kms_acme.doctor.examination import needed_rights, wanted_definitions
from kms_acme.doctor.snapshot import Right
from kms_acme.install import manifests
from tests.support import pki
from tests.support.operated import NOW, authority, credential, policy, profile, ready_status, secret

DAY = timedelta(days=1)
WANTED = wanted_definitions(manifests())
READY = ready_status()


def lease(seconds: float = 5, holder: str = "pod") -> Lease:
    renewed = (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = LeaseSpec(holder_identity=holder, lease_duration_seconds=15, renew_time=renewed)
    return Lease(metadata=ObjectMeta(), spec=spec)


WELL = Snapshot(
    release="kms-acme",
    authorities=(authority(status=READY),),
    policies=(policy(status=READY),),
    profiles=(profile(status=READY),),
    credentials=(credential(status={**READY, "accounts": 1}),),
    wanted=WANTED,
    definitions=WANTED,
    leases={"operator": lease(), "server": lease()},
)


def found(**changes: Any) -> tuple[Finding, ...]:
    return examine(replace(WELL, **changes), now=NOW)


@pytest.mark.requirement("P5")
def test_where_all_is_well_nothing_is_found() -> None:
    assert examine(WELL, now=NOW) == ()


def lacking() -> tuple[Any, ...]:
    """The kinds of an older release: one field of one kind is missing."""
    first, *rest = WANTED
    version = first.spec.versions[0]
    schema: dict[str, Any] = {"openAPIV3Schema": {"properties": {"spec": {}}}}
    from msgspec.structs import replace as with_  # noqa: PLC0415 - the other replace is of dataclasses

    return (with_(first, spec=with_(first.spec, versions=(with_(version, schema=schema),))), *rest)


@pytest.mark.requirement("P5")
@pytest.mark.parametrize(
    ("changes", "level", "about", "what"),
    [
        ({"definitions": WANTED[1:]}, "error", "CustomResourceDefinition", "does not exist"),
        ({"definitions": lacking()}, "error", "CustomResourceDefinition", "is older than this program: it lacks "),
        (
            {"refused": (Right("server", "list", "", "secrets", "kms-acme"),)},
            "error",
            "ServiceAccount of the server",
            "may not list secrets in namespace kms-acme",
        ),
        ({"leases": {"operator": None}}, "error", "Lease of the operator", "has no holder"),
        ({"leases": {"server": lease(holder="")}}, "error", "Lease of the server", "has no holder"),
        ({"leases": {"server": lease(3600)}}, "error", "Lease of the server", "was renewed 1 hour ago"),
        ({"leases": {"server": lease(-3600)}}, "warning", "Lease of the server", "1 hour from now"),
        ({"authorities": (authority(),)}, "error", "CertificateAuthority pki/issuing", "was not looked at"),
        (
            {"profiles": (profile(status=ready_status("NotFound", "False")),)},
            "error",
            "CertificateProfile pki/web",
            "is not Ready (NotFound)",
        ),
        ({"unreadable": ("EABCredential a/b: spec.x",)}, "error", "EABCredential a/b: spec.x", "cannot be read"),
        ({"broken": {"https://a/directory": "answered 503"}}, "error", "URL https://a/directory", "answered 503"),
        ({"broken": {"http://a/b.crl": "did not answer"}}, "error", "URL http://a/b.crl", "did not answer"),
        (
            {"authorities": (authority(status={**READY, "notAfter": (NOW + 9 * DAY).isoformat()}),)},
            "warning",
            "CertificateAuthority pki/issuing",
            "in 9 days",
        ),
        (
            {"authorities": (authority(status={**READY, "notAfter": (NOW - DAY).isoformat()}),)},
            "error",
            "CertificateAuthority pki/issuing",
            "expired at",
        ),
        (
            {
                "serving_certificate": certificate_pem(
                    pki.root(not_after=NOW + DAY / 12, not_before=NOW - DAY).certificate
                )
            },
            "warning",
            "serving certificate",
            "ends at",
        ),
        ({"serving_certificate": "none"}, "error", "serving certificate", "is no certificate"),
        (
            {"credentials": (credential(status={**READY, "accounts": 0}, created=NOW - 100 * DAY),)},
            "note",
            "EABCredential pki/web",
            "has no account and is 100 days old",
        ),
        (
            {"credentials": (credential(spec={"expiresAt": (NOW - DAY).isoformat()}, status=READY),)},
            "note",
            "EABCredential pki/web",
            "has expired",
        ),
        (
            {"policies": (policy(dnsNames={"allowed": ["**"]}, status=READY),)},
            "warning",
            "CertificatePolicy pki/web",
            "allows every name",
        ),
        (
            {"policies": (policy(dnsNames={"allowed": ["**.com"]}, status=READY),)},
            "warning",
            "CertificatePolicy pki/web",
            "does not end in two literal labels",
        ),
        (
            {"policies": (WELL.policies[0], policy("other", status=READY))},
            "note",
            "CertificatePolicy pki/other",
            "no profile",
        ),
        ({"unread": ("Secrets of namespace kms-acme",)}, "note", "Secrets of namespace kms-acme", "was not looked at"),
    ],
)
def test_what_is_wrong_is_found_with_why_and_what_to_do(
    changes: dict[str, Any], level: str, about: str, what: str
) -> None:
    (finding,) = found(**changes)
    assert (finding.level, finding.about.startswith(about), what in finding.what) == (level, True, True), finding
    assert finding.why.endswith(".")
    assert finding.do


def test_a_ca_that_waits_for_its_certificate_has_a_request_to_sign() -> None:
    (finding,) = found(authorities=(authority(status=ready_status("WaitingForCertificate", "False")),))
    assert finding.do == "kms-acme ca request pki/issuing"


@pytest.mark.requirement("P5")
def test_a_key_without_an_owner_is_found_unless_it_is_kept_for_one() -> None:
    def key(**annotations: str) -> Any:
        labels = {COMPONENT: SIGNING_KEY, OWNER_UID: "gone"}
        made = secret("ca-gone", "kms-acme", labels=labels)
        from msgspec.structs import replace as with_  # noqa: PLC0415 - as above

        stated = {OWNER: "CertificateAuthority pki/old", **annotations}
        return with_(made, metadata=with_(made.metadata, annotations=stated))

    (finding,) = found(secrets=(key(),))
    assert finding.what == "has no owner: CertificateAuthority pki/old does not exist"
    assert found(secrets=(key(**{KEPT_UNTIL: (NOW + DAY).isoformat()}),)) == ()
    assert len(found(secrets=(key(**{KEPT_UNTIL: (NOW - DAY).isoformat()}),))) == 1


def test_the_rights_that_are_asked_for_are_those_of_the_roles() -> None:
    rights = set(needed_rights(manifests(), release="kms-acme"))
    assert Right("server", "list", "", "secrets", "kms-acme") in rights
    assert Right("server", "list", "", "secrets") not in rights
    assert Right("operator", "watch", "pki.kms.hanzo.ai", "certificateprofiles") in rights
    assert Right("server", "update", "pki.kms.hanzo.ai", "acmeorders/status") in rights


def test_errors_come_first() -> None:
    levels = [
        each.level
        for each in found(
            leases={"server": None}, unread=("a",), policies=(policy(dnsNames={"allowed": ["**"]}, status=READY),)
        )
    ]
    assert levels == ["error", "warning", "note"]
