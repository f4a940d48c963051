"""Certificates over HTTP-01 through an Ingress controller: names share an address and are told apart by their hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.node import ZONE
from e2e.support import dns, ingress
from tests.support.certmanager import Team
from tests.support.eventually import eventually
from tests.support.installation import SOON
from tests.support.release import Release

CLASS = "kms-acme-test"
SOLVER = {"http01": {"ingress": {"ingressClassName": CLASS, "serviceType": "ClusterIP"}}}
HOSTS = ("shop", "www")


@pytest.fixture
def controller(release: Release, tmp_path: Path) -> Iterator[None]:
    """It has port 80 of the address of all names of the zone."""
    machine = release.cluster.machine_address
    with (
        dns.serving(dns.Zone(ZONE, dns.Addresses(machine)), host=machine, port=53),
        ingress.serving(release.cluster, class_name=CLASS, host=machine, port=80, folder=tmp_path),
    ):
        yield


def application(team: Team, host: str) -> None:
    """What is served under a name already, and sends everybody to HTTPS."""
    name = f"{host}.{team.namespace}.{ZONE}"
    backend = {"service": {"name": host, "port": {"number": 80}}}
    team.apply("Service", host, {"selector": {"app": host}, "ports": [{"port": 80}]}, api="v1")
    spec = {
        "ingressClassName": CLASS,
        "tls": [{"hosts": [name], "secretName": "shop-tls"}],
        "rules": [{"host": name, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
    }
    team.apply("Ingress", host, spec, api="networking.k8s.io/v1")


@pytest.mark.requirement("C1", "C11")
@pytest.mark.usefixtures("controller")
def test_a_certificate_for_the_hosts_of_an_ingress_becomes_ready(team: Team) -> None:
    team.enrolls([SOLVER], policy={"dnsNames": {"allowed": [f"**.{ZONE}"]}})
    for each in HOSTS:
        application(team, each)
    names = [f"{each}.{team.namespace}.{ZONE}" for each in HOSTS]
    team.wait(team.certificate("shop", dnsNames=names))
    assert team.issued("shop").names == set(names)
    assert team.proven_challenge_types() == ["http-01", "http-01"]

    def are_left() -> bool:
        return {each["metadata"]["name"] for each in team.objects("ingresses")} == set(HOSTS)

    eventually(are_left, seconds=SOON, why=team.story)
