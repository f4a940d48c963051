"""Nonces that cert-manager has kept, and no server takes any more."""

from __future__ import annotations

import pytest

from e2e.chart.helm import NAMESPACE, RELEASE
from kms.resources.secret_names import nonce_secret_name
from tests.support.certmanager import TRUSTED, Team


def refused(team: Team) -> float:
    """How many requests were answered with 400."""
    return team.release.counted("kms_acme_requests_total", status="400")


@pytest.mark.requirement("C5", "C16")
def test_old_nonces_cost_a_moment_and_no_certificate(team: Team) -> None:
    team.enrolls(**TRUSTED)
    team.wait(team.certificate("first", dnsNames=[team.name("first")]))  # the answers brought nonces, which it keeps
    for number in range(3):  # cert-manager keeps none if it has just built a new client for its Issuer
        team.release.cluster.kubectl("delete", "secret", nonce_secret_name(RELEASE), f"--namespace={NAMESPACE}")
        team.release.restart()
        assert refused(team) == 0
        team.wait(team.certificate(f"next-{number}", dnsNames=[team.name(f"next-{number}")]))
        if refused(team):
            return
    pytest.fail("cert-manager never sent a nonce of the key before")
