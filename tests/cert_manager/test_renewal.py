"""Certificates that follow one another: by time, by hand, with a new key or the same one, and when the server asks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from acme_server.orders.lifetimes import BACKDATE
from e2e.cluster.node import CertManager
from tests.support.certmanager import TRUSTED, Team


def test_a_certificate_is_renewed_when_its_time_has_come(team: Team) -> None:
    team.enrolls(certificate={"duration": "1h"}, **TRUSTED)
    shop = team.certificate("shop", dnsNames=[team.name("shop")], renewBefore="58m50s")
    team.wait(shop)
    first = team.issued("shop")
    team.wait(shop, "jsonpath={.status.revision}=2")
    second = team.issued("shop")
    assert second.leaf.not_valid_after_utc > first.leaf.not_valid_after_utc
    assert team.condition("certificate", "shop", "Ready")["status"] == "True"


def test_a_renewal_by_hand_brings_a_new_key_where_that_is_wanted(team: Team) -> None:
    team.enrolls(**TRUSTED)
    policies = {"rotated": "Always", "kept": "Never"}
    for name, policy in policies.items():
        algorithm = {"algorithm": "ECDSA", "size": 256, "rotationPolicy": policy}
        team.certificate(name, dnsNames=[team.name(name)], privateKey=algorithm)
    for name, policy in policies.items():
        team.wait(f"certificate/{name}")
        first = team.issued(name)
        team.renew(name)
        second = team.issued(name)
        assert second.leaf.serial_number != first.leaf.serial_number
        assert (second.leaf.public_key() == first.leaf.public_key()) is (policy == "Never")


def test_a_renewal_needs_no_solver_while_the_name_is_proven(team: Team) -> None:
    team.enrolls()
    team.expose("shop")
    team.wait(team.certificate("shop", dnsNames=[team.name("shop")]))
    team.kubectl("delete", "service", "shop")
    team.renew("shop")
    assert len(team.issued_orders()) == 2


@pytest.fixture
def renewal_information(team: Team, cert_manager: CertManager) -> Iterator[None]:
    """cert-manager asks the server when to renew."""
    cluster = team.release.cluster
    replace(cert_manager, feature_gates={"ACMEUseARI": True}).configure(cluster)
    yield
    cert_manager.configure(cluster)


@pytest.mark.requirement("C13", "ARI-M3")
@pytest.mark.usefixtures("renewal_information")
def test_a_certificate_is_renewed_when_the_server_asks_for_it_and_names_the_one_it_replaces(team: Team) -> None:
    team.enrolls(**TRUSTED)
    shop = team.certificate("shop", dnsNames=[team.name("shop")])
    team.wait(shop)
    team.wait(shop, "jsonpath={.status.acme.ari.suggestedWindow.start}")
    first = team.issued("shop").leaf
    window = team.object("certificate", "shop")["status"]["acme"]["ari"]["suggestedWindow"]
    assert first.not_valid_before_utc < datetime.fromisoformat(window["start"]) < first.not_valid_after_utc

    # The time that is asked for has whole seconds, and the certificate must be older.
    while datetime.now(UTC) < first.not_valid_before_utc + BACKDATE + timedelta(seconds=2):
        time.sleep(0.1)
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    team.kubectl(
        "patch", "certificateprofile", "web", "--type=merge", f'--patch={{"spec":{{"renewIssuedBefore":"{now}"}}}}'
    )
    forgotten = json.dumps({"status": {"acme": None}})  # else it asks again after an hour at the earliest
    team.kubectl("patch", "certificate", "shop", "--subresource=status", "--type=merge", f"--patch={forgotten}")
    team.wait(shop, "jsonpath={.status.revision}=2")
    assert team.issued("shop").leaf.serial_number != first.serial_number
    (replacing,) = (each for each in team.issued_orders() if "replaces" in each["spec"])
    assert int(replacing["status"]["serialNumber"], 16) == team.issued("shop").leaf.serial_number
