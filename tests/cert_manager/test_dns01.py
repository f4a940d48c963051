"""Certificates over DNS-01: cert-manager changes the zone of a real DNS server (RFC 2136), wildcards included."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from e2e.cluster.node import ZONE
from e2e.support import knot
from tests.support.certmanager import Team
from tests.support.eventually import eventually
from tests.support.installation import SOON
from tests.support.release import Release

CAUTION = timedelta(seconds=60)
"""How long cert-manager waits after it has found the record itself, whatever its time to live is."""
ALLOWED = {"dnsNames": {"allowed": [f"**.{ZONE}"], "wildcards": "Allow"}}


@pytest.fixture(scope="module")
def key(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[knot.TSIGKey]:
    """The DNS server of the zone, where the cluster's DNS looks for it, and what opens it."""
    folder: Path = tmp_path_factory.mktemp("knot")
    with knot.serving(ZONE, host=release.cluster.machine_address, port=53, folder=folder) as opened:
        yield opened


@pytest.fixture
def solver(team: Team, key: knot.TSIGKey) -> dict[str, Any]:
    """The solver of an issuer in the namespace, which holds the key of the zone. cert-manager looks at the zone."""
    team.kubectl("create", "secret", "generic", "tsig", f"--from-literal=secret={key.secret}")
    zone = {
        "nameserver": f"{team.release.cluster.machine_address}:53",
        "tsigKeyName": key.name,
        "tsigAlgorithm": "HMACSHA256",
        "tsigSecretSecretRef": {"name": "tsig", "key": "secret"},
    }
    return {"dns01": {"rfc2136": zone}}


@pytest.mark.requirement("C1", "M151")
def test_a_name_a_wildcard_and_its_base_name_become_one_certificate(team: Team, solver: dict[str, Any]) -> None:
    base = f"{team.namespace}.{ZONE}"
    names = [base, f"*.{base}", f"shop.{base}"]
    enrollment = team.enrolls([{**solver, "waitInsteadOfSelfCheck": "1s"}], policy=ALLOWED, challenges=["dns-01"])
    team.wait(team.certificate("wild", dnsNames=names))
    issued = team.issued("wild")
    assert issued.names == set(names)
    for each in (base, f"any.{base}"):
        issued.verify(enrollment.chain, x509.DNSName(each))
    assert set(team.proven_challenge_types()) == {"dns-01"}


@pytest.mark.slow
@pytest.mark.requirement("C1", "M151")
def test_cert_manager_finds_its_record_in_the_zone_before_it_asks_for_a_validation(
    team: Team, solver: dict[str, Any]
) -> None:
    name = f"shop.{team.namespace}.{ZONE}"
    team.enrolls([solver], policy=ALLOWED, challenges=["dns-01"])
    shop = team.certificate("shop", dnsNames=[name])
    eventually(lambda: team.objects("challenges"), seconds=SOON, why=team.story)
    (asked,) = team.objects("challenges")
    team.wait(shop, limit=150)
    assert team.issued("shop").names == {name}
    (order,) = team.issued_orders()
    (challenge,) = order["status"]["authorizations"][0]["challenges"]
    since = datetime.fromisoformat(asked["metadata"]["creationTimestamp"])
    assert datetime.fromisoformat(challenge["validated"]) - since >= CAUTION
