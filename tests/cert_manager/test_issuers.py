"""Issuers with external account binding: Ready, and Ready again whatever was done to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.certmanager import ACCOUNT, CERT_MANAGER, ISSUER, TRUSTED, Credential, Team

ELSEWHERE: dict[str, Any] = {
    "from": "Selector",
    "selector": {"matchLabels": {"kubernetes.io/metadata.name": CERT_MANAGER.namespace}},
}
"""Credentials of cert-manager's own namespace, where a ClusterIssuer has its Secrets."""


@pytest.fixture
def cluster_credential(team: Team) -> Iterator[Credential]:
    team.profile(allowedNamespaces=ELSEWHERE, **TRUSTED)
    yield team.credential(namespace=CERT_MANAGER.namespace, name=team.namespace)
    where = f"--namespace={CERT_MANAGER.namespace}"
    team.release.cluster.kubectl("delete", "eabcredential", team.namespace, where)
    team.release.cluster.kubectl("delete", "clusterissuer", team.namespace, "--ignore-not-found")
    team.release.cluster.kubectl("delete", "secret", team.namespace, where, "--ignore-not-found")


@pytest.mark.requirement("C7", "C8", "C15")
def test_a_cluster_issuer_with_a_credential_serves_every_namespace(team: Team, cluster_credential: Credential) -> None:
    acme = team.issuer_spec(cluster_credential, privateKeySecretRef={"name": team.namespace})
    issuer = team.apply("ClusterIssuer", team.namespace, {"acme": acme})
    team.wait(issuer)
    reference = {"name": team.namespace, "kind": "ClusterIssuer"}
    team.wait(team.certificate("shop", dnsNames=[team.name("shop")], issuerRef=reference))
    (account,) = team.objects("acmeaccounts")
    assert account["status"]["state"] == "valid"


def account_of(team: Team) -> str:
    """The URL of the account that the issuer has."""
    return str(team.object("issuer", ISSUER)["status"]["acme"]["uri"])


@pytest.mark.requirement("C8", "C18")
def test_an_issuer_made_again_with_the_same_key_finds_its_account(team: Team) -> None:
    team.profile(**TRUSTED)
    credential = team.credential(maximumAccounts=1)
    acme = team.issuer_spec(credential)
    team.wait(team.issuer(acme))
    account = account_of(team)
    for _ in range(2):
        team.kubectl("delete", "issuer", ISSUER)
        assert team.object("secret", ACCOUNT)["data"], "the key outlives the issuer"
        team.wait(team.issuer(acme))
        assert account_of(team) == account
    assert len(team.objects("acmeaccounts")) == 1
    assert team.object("eabcredential", "web")["status"]["accounts"] == 1
