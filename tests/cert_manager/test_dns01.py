"""Certificates over DNS-01: cert-manager changes the zone of a real DNS server (RFC 2136), wildcards included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from e2e import knot
from e2e.cluster.node import ZONE
from tests.support.certmanager import Team
from tests.support.release import Release

ALLOWED = {"dnsNames": {"allowed": [f"**.{ZONE}"], "wildcards": "Allow"}}


@pytest.fixture(scope="module")
def key(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[knot.Key]:
    """The DNS server of the zone, where the cluster's DNS looks for it, and what opens it."""
    folder: Path = tmp_path_factory.mktemp("knot")
    with knot.serving(ZONE, host=release.cluster.machine_address, port=53, folder=folder) as opened:
        yield opened


@pytest.fixture
def solver(team: Team, key: knot.Key) -> dict[str, Any]:
    """The solver of an issuer in the namespace, which holds the key of the zone."""
    team.kubectl("create", "secret", "generic", "tsig", f"--from-literal=secret={key.secret}")
    zone = {
        "nameserver": f"{team.release.cluster.machine_address}:53",
        "tsigKeyName": key.name,
        "tsigAlgorithm": "HMACSHA256",
        "tsigSecretSecretRef": {"name": "tsig", "key": "secret"},
    }
    return {"dns01": {"rfc2136": zone}, "waitInsteadOfSelfCheck": "1s"}  # else it waits for 60 s after its self check


@pytest.mark.requirement("C1", "M151")
def test_a_name_a_wildcard_and_its_base_name_become_one_certificate(team: Team, solver: dict[str, Any]) -> None:
    base = f"{team.namespace}.{ZONE}"
    names = [base, f"*.{base}", f"shop.{base}"]
    enrollment = team.enrolls([solver], policy=ALLOWED, challenges=["dns-01"])
    team.wait(team.certificate("wild", dnsNames=names))
    issued = team.issued("wild")
    assert issued.names == set(names)
    for each in (base, f"any.{base}"):
        issued.verify(enrollment.chain, x509.DNSName(each))
    (order,) = team.issued_orders()
    assert {
        challenge["type"]
        for authorization in order["status"]["authorizations"]
        for challenge in authorization["challenges"]
        if challenge["state"] == "valid"
    } == {"dns-01"}
