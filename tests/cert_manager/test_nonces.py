"""Nonces that cert-manager has kept, and no server takes any more."""

from __future__ import annotations

import pytest

from e2e.chart.helm import NAMESPACE, RELEASE
from kms.resources.secrets import nonce_secret_name
from tests.support.certmanager import TRUSTED, Team

READ = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{port}/metrics').read().decode())"


def refused(team: Team) -> list[str]:
    """The lines of the server's metrics about requests that were answered with 400."""
    (server,) = (
        each
        for each in team.release.get("deployment")["spec"]["template"]["spec"]["containers"]
        if each["name"] == "server"
    )
    (port,) = (each["containerPort"] for each in server["ports"] if each["name"] == "metrics")
    said = team.release.run("server", "/opt/kms-acme/bin/python3", "-c", READ.format(port=port))
    return [each for each in said.splitlines() if each.startswith("kms_acme_requests_total") and 'status="400"' in each]


@pytest.mark.requirement("C5", "C16")
def test_old_nonces_cost_a_moment_and_no_certificate(team: Team) -> None:
    team.enrolls(**TRUSTED)
    team.wait(team.certificate("first", dnsNames=[team.name("first")]))  # the answers brought nonces, which it keeps
    team.release.cluster.kubectl("delete", "secret", nonce_secret_name(RELEASE), f"--namespace={NAMESPACE}")
    team.release.restart()
    assert refused(team) == []
    team.wait(team.certificate("second", dnsNames=[team.name("second")]))
    assert refused(team), "it had nonces of the key before"
