"""What a Certificate asks for beyond its names: how long, what kind of key, of which profile, up to which root."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.verification import VerificationError

from kms.pki.ca import chain_to_root_pem
from kms.pki.certificate import certificate_pem
from kms.pki.keys import key_algorithm, private_key_pem
from kms.resources.kinds import PROFILES
from tests.support import pki
from tests.support.certmanager import TRUSTED, Team

TWO_HOURS = "2h"
TOLERANCE = timedelta(minutes=5)
ED25519 = {"keyAlgorithms": ["Ed25519"], "signatureAlgorithms": ["Ed25519"]}
"""A policy for keys that the default one does not allow."""
KEYS = {
    "ecdsa": ({"algorithm": "ECDSA", "size": 384}, "ECDSA-P384", {}),
    "rsa": ({"algorithm": "RSA", "size": 4096}, "RSA-4096", {}),  # cert-manager signs such a request with SHA-512
    "ed25519": ({"algorithm": "Ed25519"}, "Ed25519", ED25519),
}


def lifetime(certificate: x509.Certificate) -> timedelta:
    """From now on."""
    return certificate.not_valid_after_utc - datetime.now(UTC)


@pytest.mark.requirement("C12")
@pytest.mark.parametrize(("asked", "lasts"), [(True, timedelta(hours=2)), (False, timedelta(hours=720))])
def test_a_duration_counts_where_the_issuer_asks_for_it(team: Team, asked: bool, lasts: timedelta) -> None:
    team.enrolls(issuer={"enableDurationFeature": asked}, **TRUSTED)
    team.wait(team.certificate("shop", dnsNames=[team.name("shop")], duration=TWO_HOURS, renewBefore="1h"))
    assert abs(lifetime(team.issued("shop").leaf) - lasts) < TOLERANCE


@pytest.mark.requirement("C4", "C11", "C12")
def test_a_duration_that_the_policy_does_not_allow_is_refused_with_what_it_allows(team: Team) -> None:
    team.enrolls(
        issuer={"enableDurationFeature": True},
        policy={"maximumDuration": "100h"},
        certificate={"duration": "50h"},
        **TRUSTED,
    )
    shop = team.certificate("shop", dnsNames=[team.name("shop")], duration="101h")
    team.wait(shop, "jsonpath={.status.failedIssuanceAttempts}=1")
    assert "/web allows at most 100h (spec.maximumDuration)" in team.describe("certificaterequest/shop-1")


@pytest.mark.requirement("C14")
@pytest.mark.parametrize(("key", "algorithm", "policy"), KEYS.values(), ids=KEYS)
def test_a_certificate_is_for_a_key_of_any_kind(
    team: Team, key: dict[str, Any], algorithm: str, policy: dict[str, Any]
) -> None:
    team.enrolls(policy=policy, **TRUSTED)
    team.wait(team.certificate("shop", dnsNames=[team.name("shop")], privateKey=key))
    issued = team.issued("shop")
    assert key_algorithm(issued.leaf.public_key()) == algorithm
    assert issued.leaf.public_key() == issued.key.public_key()


@pytest.mark.requirement("C13")
def test_an_issuer_chooses_one_of_the_profiles_of_the_directory(team: Team) -> None:
    short = {"issuerRef": {"name": "web"}, "policyRef": {"name": "web"}, "certificate": {"duration": TWO_HOURS}}
    team.release.apply(team.namespace, PROFILES, {**short, "enrollment": {"acme": {}}}, name="short")
    offered = [{"name": "short", "description": "for two hours", "profileRef": {"name": "short"}}]
    team.enrolls(issuer={"profile": "short"}, profiles=offered, **TRUSTED)
    team.wait(team.certificate("shop", dnsNames=[team.name("shop")], renewBefore="30m"))
    assert abs(lifetime(team.issued("shop").leaf) - timedelta(hours=2)) < TOLERANCE
    (order,) = team.issued_orders()
    assert order["spec"]["profile"] == "short"


@pytest.mark.requirement("C17")
def test_an_issuer_prefers_the_chain_to_another_root(team: Team) -> None:
    now = datetime.now(UTC)
    begins, ends = now - pki.DAY, now + 99 * pki.DAY
    old, new = (
        pki.root(common_name=each, with_key=pki.key(which=each), not_before=begins, not_after=ends + pki.DAY)
        for each in ("Old Root", "New Root")
    )
    cross, issuing = (pki.below(each, not_before=begins, not_after=ends) for each in (old, new))
    pair = {"tls.crt": chain_to_root_pem(issuing).encode(), "tls.key": private_key_pem(issuing.key)}
    data = {key: base64.b64encode(value).decode() for key, value in pair.items()}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "issuing"},
        "type": "kubernetes.io/tls",
        "data": data,
    }
    team.kubectl("apply", "--filename=-", stdin=json.dumps(secret))
    authority = {
        "imported": {"secretRef": {"name": "issuing"}},
        "crossCertificates": [certificate_pem(cross.certificate)],
    }
    team.enrolls(issuer={"preferredChain": "Old Root"}, authority=authority, **TRUSTED)
    team.wait(team.certificate("shop", dnsNames=[team.name("shop")]))
    issued = team.issued("shop")
    issued.verify(certificate_pem(old.certificate), x509.DNSName(team.name("shop")))
    with pytest.raises(VerificationError):
        issued.verify(certificate_pem(new.certificate), x509.DNSName(team.name("shop")))
