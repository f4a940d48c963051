"""Three replicas, trouble in mid-order, and many orders at once: each Certificate becomes Ready at its first attempt.

So nobody has to touch one, and none waits for cert-manager's back-off, which is an hour at least. Between the replicas
and the API server is a proxy: it passes everything on, unless a test has it refuse something.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.chart.helm import NAMESPACE, RELEASE
from e2e.cluster.node import ZONE
from e2e.support import dns, http01
from e2e.support.apiproxy import Proxy, Refusal
from tests.support.certmanager import API, HTTP01, ISSUER, TRUSTED, Team
from tests.support.eventually import eventually
from tests.support.manifests import text
from tests.support.mishaps import REPLICAS, behind_a_proxy, delete, is_presented, kill, leader, never_failed
from tests.support.release import Release

pytestmark = pytest.mark.slow

AWAY = 30.0
HANGING = 60.0
"""Seconds after which an API server answers that it has taken too long."""
PATIENT = 170
"""Seconds: cert-manager tries again after 5, 10, 20 and so on."""
AT_ONCE = tuple({**each, "waitInsteadOfSelfCheck": "0s"} for each in HTTP01)
"""cert-manager does not look whether the solver can be reached: only the server does, as often as it likes."""
SOON = 60.0
MANY = int(os.environ.get("KMS_ACME_E2E_CERTIFICATES", "30"))
"""Certificates at once: 200 are what has to work, 30 what can be waited for each time."""
LIMIT = 60 + 3 * MANY
"""Seconds for all of them, on a machine that others use too."""
CHALLENGED = 4
"""As many of them are proven by HTTP-01, each with a solver pod."""


@pytest.fixture(scope="module")
def proxy(release: Release) -> Iterator[Proxy]:
    """Three replicas, with a proxy before the API server that refuses nothing yet."""
    with behind_a_proxy(release) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def all_is_well_again(release: Release, proxy: Proxy) -> Iterator[None]:
    yield
    proxy.refuse()
    release.cluster.kubectl("rollout", "status", f"deployment/{RELEASE}", f"--namespace={NAMESPACE}", "--timeout=120s")


def become_ready_at_the_first_attempt(team: Team, *certificates: str) -> None:
    for each in certificates:
        team.wait(each, limit=PATIENT)
    never_failed(team, len(certificates))


def in_validation(team: Team) -> str:
    """Order a certificate for a name behind which is nothing yet, and wait until the server is about to validate it."""
    team.apply("Service", "shop", {"ports": [{"port": 80, "targetPort": 8089}]}, api="v1")
    certificate = team.certificate("shop", dnsNames=[team.name("shop")])

    def is_validated() -> bool:
        return any(
            challenge["state"] == "processing"
            for order in team.objects("acmeorders")
            for authorization in order.get("status", {}).get("authorizations", ())
            for challenge in authorization["challenges"]
        )

    eventually(is_validated, seconds=SOON, why=team.story)
    return certificate


@pytest.mark.requirement("C4", "C6")
def test_the_api_server_is_away_for_half_a_minute(release: Release, team: Team) -> None:
    team.enrolls()
    hosts = ("early", "late")
    for each in hosts:
        team.expose(each)
    early = team.certificate("early", dnsNames=[team.name("early")])
    eventually(lambda: is_presented(team), seconds=SOON, why=team.story)
    late = team.certificate("late", dnsNames=[team.name("late")])
    release.cluster.stop_apiserver()
    try:
        time.sleep(AWAY)
    finally:
        release.cluster.start_apiserver()
    become_ready_at_the_first_attempt(team, early, late)


@pytest.mark.requirement("C6")
def test_the_leader_is_killed_while_a_challenge_is_validated(release: Release, team: Team) -> None:
    team.enrolls(AT_ONCE)
    certificate, victim = in_validation(team), leader(release)
    kill(release, victim)
    team.expose("shop")
    become_ready_at_the_first_attempt(team, certificate)


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("end", [kill, delete])
def test_all_replicas_are_restarted_while_a_challenge_is_validated(
    release: Release, team: Team, end: Callable[[Release, str], None]
) -> None:
    team.enrolls(AT_ONCE)
    certificate = in_validation(team)
    pods = [each["metadata"]["name"] for each in release.objects("pods", NAMESPACE)]
    assert len(pods) == REPLICAS
    for each in pods:
        end(release, each)
    team.expose("shop")
    become_ready_at_the_first_attempt(team, certificate)


class ThirdTime(http01.Answerer):
    """Fails twice, then answers as the challenge of cert-manager says."""

    def __init__(self, team: Team) -> None:
        super().__init__()
        self._team = team

    def reply(self, path: str) -> http01.Reply:
        asked = sum(each.path == path for each in self.requests)
        if asked < 3:
            return (http01.Text("busy\n", status=503), http01.Raw())[asked - 1]
        token = path.removeprefix(http01.PREFIX)
        (key,) = (each["spec"]["key"] for each in self._team.objects("challenges") if each["spec"]["token"] == token)
        return http01.Text(key)


def test_a_challenge_is_answered_at_the_third_try_only(release: Release, team: Team) -> None:
    machine, answerer = release.cluster.machine_address, ThirdTime(team)
    team.enrolls(AT_ONCE, policy={"dnsNames": {"allowed": [f"**.{ZONE}"]}})
    with (
        dns.serving(dns.Zone(ZONE, dns.Addresses(machine)), host=machine, port=53),
        http01.serving(answerer, host=machine, port=80),
    ):
        certificate = team.certificate("shop", dnsNames=[f"shop.{ZONE}"])
        become_ready_at_the_first_attempt(team, certificate)
    assert len(answerer.requests) == 3


@pytest.mark.requirement("C4", "C6")
def test_a_fifth_of_the_requests_to_the_api_server_is_refused(proxy: Proxy, team: Team) -> None:
    team.enrolls()
    team.expose("shop")
    proxy.refuse(Refusal(429, retry_after=1), Refusal(503), share=0.2)
    shop = team.certificate("shop", dnsNames=[team.name("shop")])
    become_ready_at_the_first_attempt(team, shop)
    assert min(proxy.refused[429], proxy.refused[503]) > 0, proxy.refused


@pytest.mark.requirement("C3", "C4", "C6")
@pytest.mark.parametrize("refusal", [Refusal(503), Refusal(504, after=HANGING)], ids=["refuses", "hangs"])
def test_while_the_api_server_does_nothing_clients_are_soon_told_to_come_again(
    release: Release, proxy: Proxy, team: Team, refusal: Refusal
) -> None:
    team.enrolls(**TRUSTED)
    unavailable, late = told_to_come_again(release), answered_late(release)
    proxy.refuse(refusal)
    shop = team.certificate("shop", dnsNames=[team.name("shop")])
    eventually(lambda: told_to_come_again(release) > unavailable, seconds=SOON, why=team.story)
    proxy.refuse()
    become_ready_at_the_first_attempt(team, shop)
    assert answered_late(release) == late


def told_to_come_again(release: Release) -> float:
    """How many requests were answered with 503."""
    return release.counted("kms_acme_requests_total", status="503")


def answered_late(release: Release) -> float:
    """How many requests were answered after more than ten seconds."""
    soon = release.counted("kms_acme_request_duration_seconds_bucket", le="10.0")
    return release.counted("kms_acme_request_duration_seconds_count") - soon


def test_many_certificates_at_once(
    release: Release, team: Team, other_team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    team.enrolls()
    other_team.enrolls(**TRUSTED)
    for number in range(CHALLENGED):
        team.expose(f"shop-{number}")
    shares = {team.namespace: (team, CHALLENGED), other_team.namespace: (other_team, MANY - CHALLENGED)}
    manifests = [manifest for share, count in shares.values() for manifest in certificates(share, count)]
    began = time.monotonic()
    release.cluster.kubectl("create", "--filename=-", stdin=text(*manifests))
    for share, _ in shares.values():
        all_ready = ("wait", "--for=condition=Ready", "certificates", "--all", f"--timeout={LIMIT}s")
        release.cluster.kubectl(*all_ready, f"--namespace={share.namespace}", limit=LIMIT)
    seconds = time.monotonic() - began
    for share, count in shares.values():
        never_failed(share, count)
    with capsys.disabled():
        print(f"\n{MANY} Certificates at once, {CHALLENGED} of them over HTTP-01: Ready after {seconds:.1f} s")


def certificates(team: Team, count: int) -> list[dict[str, Any]]:
    """Manifests of so many."""
    issuer, key = {"name": ISSUER, "kind": "Issuer"}, {"algorithm": "ECDSA"}
    specs = {
        name: {"secretName": name, "issuerRef": issuer, "privateKey": key, "dnsNames": [team.name(name)]}
        for name in (f"shop-{number}" for number in range(count))
    }
    return [
        {
            "apiVersion": API,
            "kind": "Certificate",
            "metadata": {"name": name, "namespace": team.namespace},
            "spec": spec,
        }
        for name, spec in specs.items()
    ]
