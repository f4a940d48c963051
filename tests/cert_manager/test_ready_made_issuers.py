"""Ready-made issuers with cert-manager itself: they become Ready, issue, follow their profile and go with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.chart.helm import NAMESPACE
from e2e.cluster.node import CertManager
from tests.support.certmanager import CERT_MANAGER, HTTP01, TRUSTED, Spec, Team
from tests.support.installation import PROFILE
from tests.support.release import Release

NAMES: Spec = {"dnsNames": {"allowed": ["**.svc.cluster.local"]}}
"""Of all namespaces: the issuers are for them."""
LABEL = "kms-acme.test/of"


@pytest.fixture
def home(release: Release, cert_manager: CertManager) -> Iterator[Team]:
    """The release namespace, whose profiles may have issuers everywhere. What is written there goes with the test."""
    yield Team(release=release, namespace=NAMESPACE)
    things = (
        "certificateprofile/web",
        "certificatepolicy/web",
        "certificateauthority/web",
        "certificateauthority/root",
    )
    release.cluster.kubectl("delete", *things, f"--namespace={NAMESPACE}", "--ignore-not-found")


def offer(home: Team, section: Spec, **acme: Any) -> None:
    """Write a profile with this section, or change it, and wait until its issuers are made."""
    home.profile(policy=NAMES, certManager={"solvers": list(HTTP01), **section}, **acme)
    home.wait(f"certificateprofile/{PROFILE}", "condition=CertManagerIssuer")


def is_ready(team: Team, issuer: str) -> None:
    team.wait(issuer, "create")
    team.wait(issuer)


@pytest.mark.requirement("C7", "C15")
def test_a_cluster_issuer_is_made_issues_follows_its_profile_and_goes_with_it(home: Team, team: Team) -> None:
    name, secrets = team.namespace, CERT_MANAGER.namespace
    section: dict[str, Any] = {"clusterIssuer": {"name": name}, "email": "pki@example.com"}
    offer(home, section)
    is_ready(team, f"clusterissuer/{name}")
    team.expose("shop")
    issuer = {"kind": "ClusterIssuer", "name": name}
    team.wait(team.certificate("shop", dnsNames=[team.name("shop")], issuerRef=issuer))
    assert team.issued("shop").names == {team.name("shop")}

    offer(home, {**section, "email": "other@example.com"})
    team.wait(f"clusterissuer/{name}", "jsonpath={.status.acme.lastRegisteredEmail}=other@example.com")
    is_ready(team, f"clusterissuer/{name}")
    (account,) = home.objects("acmeaccounts")
    assert account["status"]["contact"] == ["mailto:other@example.com"], "it is the same account"

    key = f"{name}-kms-acme-eab"
    assert team.release.object("secret", secrets, key)
    home.kubectl("delete", "certificateprofile", PROFILE)
    team.wait(f"clusterissuer/{name}", "delete")
    team.release.cluster.kubectl("wait", "--for=delete", f"secret/{key}", f"--namespace={secrets}", "--timeout=60s")
    home.wait(f"eabcredential/{PROFILE}-issuer-{secrets}", "delete")


@pytest.mark.requirement("C7", "C15")
def test_issuers_are_made_in_the_namespaces_that_are_chosen_and_nowhere_else(
    home: Team, team: Team, other_team: Team
) -> None:
    chosen = {"matchLabels": {LABEL: team.namespace}}
    team.kubectl("label", "namespace", team.namespace, f"{LABEL}={team.namespace}")
    section = {"issuers": {"name": "pki", "namespaces": {"from": "Selector", "selector": chosen}}}
    offer(home, section, **TRUSTED)
    is_ready(team, "issuer/pki")
    assert not other_team.objects("issuers")

    team.kubectl("label", "namespace", other_team.namespace, f"{LABEL}={team.namespace}")
    is_ready(other_team, "issuer/pki")
    for each in (team, other_team):
        each.wait(each.certificate("shop", dnsNames=[each.name("shop")], issuerRef={"kind": "Issuer", "name": "pki"}))
    # Accounts of former profiles of the namespace are kept.
    users = {each["spec"]["externalAccount"]["keyID"] for each in home.objects("acmeaccounts")}
    issuers = [each.object("issuer", "pki")["spec"]["acme"] for each in (team, other_team)]
    own = {each["externalAccountBinding"]["keyID"] for each in issuers}
    assert len(own) == 2, "each has a credential of its own"
    assert own <= users

    team.kubectl("label", "namespace", other_team.namespace, f"{LABEL}-")
    other_team.wait("issuer/pki", "delete")
    other_team.wait("secret/pki-kms-acme-eab", "delete")
    assert team.condition("issuer", "pki", "Ready")["status"] == "True"

    home.kubectl("delete", "certificateprofile", PROFILE)
    team.wait("issuer/pki", "delete")
    team.wait("secret/pki-kms-acme-eab", "delete")
