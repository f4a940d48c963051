"""Profiles with an external CA, which gets requests unchanged."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kms_operator.plan import Plan
from kms_operator.reconcilers import certificate_profile
from tests.support.operated import (
    NOW,
    SERVING,
    authority,
    entropy,
    policy,
    profile,
    ready_status,
    snapshot_of,
    stated,
)

CERT_MANAGER = {"certManager": {"issuerRef": {"name": "corporate"}}}
SIGNER = {"signer": {"name": "example.com/web"}}
RULES = policy(usages={"allowed": ["digital signature", "server auth", "client auth", "any"]})


def reconciled(certificate: Any, external: Any, *, ready: str = "True") -> Plan:
    issuing = authority(external=external, status=ready_status(status=ready))
    one = profile(certificate={"usages": ["digital signature", "server auth"], **certificate})
    snapshot = snapshot_of(one, issuing, RULES, SERVING)
    return certificate_profile.plan(one, snapshot, now=NOW, entropy=entropy())


@pytest.mark.requirement("X18")
@pytest.mark.parametrize(
    ("certificate", "external"),
    [
        ({}, CERT_MANAGER),
        ({"subject": {"organizations": ["Example"]}}, CERT_MANAGER),
        ({"usages": ["digital signature", "client auth"]}, CERT_MANAGER),
        ({"duration": "1m"}, CERT_MANAGER),
        ({"duration": "10m"}, SIGNER),
    ],
)
def test_duration_usages_and_subject_may_be_asked_for(certificate: Any, external: Any) -> None:
    assert stated(reconciled(certificate, external)).status == "True"


@pytest.mark.requirement("X18")
@pytest.mark.parametrize(
    ("certificate", "external", "says"),
    [
        ({"commonName": "FirstName"}, CERT_MANAGER, "spec.certificate.commonName is FirstName, but an external CA"),
        ({"commonName": "None"}, SIGNER, "write Requested"),
        ({"usages": ["digital signature"]}, CERT_MANAGER, 'no extended key usage, without which .* "server auth"'),
        ({"usages": ["any"]}, CERT_MANAGER, 'has "any", which is never accepted'),
        ({"duration": "9m59s"}, SIGNER, "is 9m59s, and signers of Kubernetes issue for at least 10m; write 10m or"),
    ],
)
def test_what_an_external_ca_cannot_apply_is_told_with_what_to_write(
    certificate: Any, external: Any, says: str
) -> None:
    ready = stated(reconciled(certificate, external))
    assert (ready.status, ready.reason) == ("False", "ContentsNotApplicable")
    assert re.search(says, ready.message)


def test_a_profile_waits_for_its_external_ca() -> None:
    assert stated(reconciled({}, CERT_MANAGER, ready="False")).reason == "IssuerNotReady"
