"""A CA that takes three minutes: cert-manager waits for its order, and goes on with it after a restart."""

from __future__ import annotations

import pytest
from cryptography import x509

from e2e.cluster.node import CertManager
from e2e.support.threads import in_thread
from tests.support.certmanager import TRUSTED, Team
from tests.support.eventually import eventually
from tests.support.installation import SOON
from tests.support.late_signer import SIGNER, late_signer
from tests.support.mishaps import kill_cert_manager, never_failed
from tests.support.release import Release
from tests.support.scripted_issuer import ANCHOR, FOREIGN_CA

LATE = 180.0
"""Seconds until the CA answers."""
PATIENT = 360
"""Seconds: cert-manager and our server ask less often the longer it takes."""
BY_SIGNER = {"external": {"signer": {"name": SIGNER}, "trustAnchors": [ANCHOR], "timeout": "10m"}}


def is_waiting(team: Team) -> bool:
    """The CA has been asked, and the order says so."""
    return any(each.get("status", {}).get("state") == "processing" for each in team.objects("acmeorders"))


@pytest.mark.slow
@pytest.mark.requirement("X22", "C9")
def test_cert_manager_waits_three_minutes_for_the_ca_and_is_killed_meanwhile(
    release: Release, team: Team, cert_manager: CertManager
) -> None:
    external = {"externalAuthorities": {"from": [team.namespace], "signer": True}}
    with (
        release.changed(external),
        in_thread(late_signer(str(release.cluster.kubeconfig), after=LATE), name="late signer"),
    ):
        team.enrolls(authority=BY_SIGNER, **TRUSTED)
        shop = team.certificate("shop", dnsNames=[team.name("shop")])
        eventually(lambda: is_waiting(team), seconds=SOON, why=team.story)
        kill_cert_manager(release, cert_manager)
        team.wait(shop, limit=PATIENT)
        never_failed(team, 1)
        (order,) = team.objects("acmeorders")
        issued = team.issued("shop")
        assert int(order["status"]["serialNumber"], 16) == issued.leaf.serial_number
        assert issued.leaf.issuer == FOREIGN_CA.certificate.subject
        issued.verify(ANCHOR, x509.DNSName(team.name("shop")))
        assert not team.kubectl(
            "get", "certificatesigningrequests", f"--field-selector=spec.signerName={SIGNER}", "-oname"
        )
