"""cert-manager is killed in mid-order: it takes up where it was by itself, and no certificate is issued twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest

from e2e.cluster.node import CertManager
from tests.support.certmanager import TRUSTED, Spec, Team
from tests.support.eventually import eventually
from tests.support.installation import SOON
from tests.support.mishaps import is_presented, kill_cert_manager, never_failed
from tests.support.release import Release

PATIENT = 150
"""Seconds: the kubelet waits longer before each restart."""
FINALIZE = "/acme/{namespace}/{profile}/orders/{order}/finalize"
ORDERS = "orders.acme.cert-manager.io"


def ordered(team: Team) -> bool:
    """The server has the order, and cert-manager may not have written down where."""
    return bool(team.objects("acmeorders"))


def issued(team: Team) -> bool:
    """The server has issued, and cert-manager may not have written down that it has finalized."""
    return bool(team.issued_orders())


MOMENTS: Mapping[str, tuple[Callable[[Team], bool], Spec]] = {
    "it has ordered": (ordered, TRUSTED),
    "it has presented its challenge": (is_presented, {}),
    "its certificate is issued": (issued, TRUSTED),
}


@pytest.mark.slow
@pytest.mark.requirement("C9")
@pytest.mark.parametrize(("moment", "profile"), MOMENTS.values(), ids=MOMENTS)
def test_cert_manager_is_killed_as_soon_as(
    release: Release, team: Team, cert_manager: CertManager, moment: Callable[[Team], bool], profile: Spec
) -> None:
    team.enrolls(**profile)
    team.expose("shop")
    shop = team.certificate("shop", dnsNames=[team.name("shop")])
    eventually(lambda: moment(team), seconds=SOON, why=team.story)
    kill_cert_manager(release, cert_manager)
    team.wait(shop, limit=PATIENT)
    never_failed(team, 1)
    (order,) = team.issued_orders()
    assert int(order["status"]["serialNumber"], 16) == team.issued("shop").leaf.serial_number
    assert team.object("certificate", "shop")["status"]["revision"] == 1


@pytest.mark.requirement("C9")
def test_an_order_that_is_finalized_once_more_brings_the_same_certificate(release: Release, team: Team) -> None:
    team.enrolls(**TRUSTED)
    team.wait(team.certificate("shop", dnsNames=[team.name("shop")]))
    (order,) = team.objects(ORDERS)
    name, before = order["metadata"]["name"], finalized(release)

    # As it is where cert-manager ends between the answer and its own note of that.
    forgotten = json.dumps({"status": {"state": "ready", "certificate": None}})
    team.kubectl("patch", ORDERS, name, "--subresource=status", "--type=merge", f"--patch={forgotten}")
    team.wait(f"{ORDERS}/{name}", "jsonpath={.status.state}=valid")
    assert team.object(ORDERS, name)["status"]["certificate"] == order["status"]["certificate"]
    assert finalized(release) == before + 1
    assert len(team.objects("acmeorders")) == 1


def finalized(release: Release) -> float:
    """How often finalize was answered with an order."""
    return release.counted("kms_acme_requests_total", route=FINALIZE, status="200")
