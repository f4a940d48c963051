"""What is refused: people who ask kubectl why read what to do about it."""

from __future__ import annotations

import pytest

from tests.support.certmanager import HTTP01, TRUSTED, Team


@pytest.mark.requirement("C4", "C11")
def test_a_name_that_the_policy_refuses_is_told_down_to_the_certificate(team: Team) -> None:
    team.enrolls(**TRUSTED)
    shop = team.certificate("shop", dnsNames=["shop.example.com"])
    team.wait(shop, "jsonpath={.status.failedIssuanceAttempts}=1")
    told = team.describe(shop, "certificaterequest/shop-1"), team.describe("orders.acme.cert-manager.io")
    reason = f'DNS name "shop.example.com" is not allowed by policy {team.namespace}/web'
    assert told[0].count(reason) >= 2, "the Certificate says it, and the CertificateRequest"
    assert "(spec.dnsNames.allowed)" in told[1]
    assert team.objects("acmeorders") == []


@pytest.mark.requirement("C11")
def test_a_challenge_that_cannot_be_met_says_what_was_seen(team: Team) -> None:
    team.enrolls([{**HTTP01[0], "waitInsteadOfSelfCheck": "0s"}])
    shop = team.certificate("shop", dnsNames=[team.name("shop")])
    team.wait(shop, "jsonpath={.status.failedIssuanceAttempts}=1")
    assert "the name does not exist (NXDOMAIN)" in team.describe("challenges")
