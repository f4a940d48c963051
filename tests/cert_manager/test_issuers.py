"""Issuers with external account binding: Ready, and Ready again whatever was done to them."""

from __future__ import annotations

import json
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


@pytest.mark.requirement("C18")
def test_an_account_that_is_gone_is_registered_again(team: Team) -> None:
    team.enrolls(**TRUSTED)
    (account,) = team.objects("acmeaccounts")
    team.kubectl("delete", "acmeaccount", account["metadata"]["name"])
    acme = team.object("issuer", ISSUER)["spec"]["acme"]
    team.wait(team.issuer({**acme, "email": "platform@example.com"}))
    (again,) = team.objects("acmeaccounts")
    assert again["metadata"]["name"] == account["metadata"]["name"], "its name follows from the key"
    assert again["metadata"]["uid"] != account["metadata"]["uid"]
    assert again["status"]["contact"] == ["mailto:platform@example.com"]
    team.wait(team.certificate("shop", dnsNames=[team.name("shop")]))


@pytest.mark.requirement("C18")
def test_an_issuer_whose_status_is_emptied_registers_again(team: Team) -> None:
    """As docs/cert-manager.md tells after a restore: nothing of the issuer or its Secrets is changed."""
    team.enrolls(**TRUSTED)
    (account,) = team.objects("acmeaccounts")
    team.kubectl("delete", "acmeaccount", account["metadata"]["name"])
    team.kubectl("patch", "issuer", ISSUER, "--subresource=status", "--type=merge", '--patch={"status": null}')
    team.wait(f"issuer/{ISSUER}")
    (again,) = team.objects("acmeaccounts")
    assert again["metadata"]["name"] == account["metadata"]["name"], "its name follows from the key"
    team.wait(team.certificate("shop", dnsNames=[team.name("shop")]))


@pytest.mark.requirement("C8", "C18")
def test_two_clusters_share_a_credential_with_keys_of_their_own(team: Team, other_team: Team) -> None:
    team.profile(**TRUSTED)
    credential = team.credential()
    copied = team.object("secret", credential.secret)["data"]
    other_team.kubectl("create", "secret", "generic", credential.secret)
    other_team.kubectl("patch", "secret", credential.secret, f"--patch={json.dumps({'data': copied})}")
    acme = team.issuer_spec(credential)
    for each in (team, other_team):
        each.wait(each.issuer(acme))
    for each in (team, other_team):
        each.wait(each.certificate("shop", dnsNames=[team.name("shop")]))
    assert account_of(team) != account_of(other_team)
    assert len(team.objects("acmeaccounts")) == team.object("eabcredential", "web")["status"]["accounts"] == 2
    assert team.issued("shop").leaf.serial_number != other_team.issued("shop").leaf.serial_number


WRONG = {
    "caBundle": ({"caBundle": None}, "x509: certificate signed by unknown authority"),
    "externalAccountBinding": ({"externalAccountBinding": None}, "externalAccountRequired"),
    "keyID": (
        {"externalAccountBinding": {"keyID": "unknown", "keySecretRef": {"name": "web-eab", "key": "secret"}}},
        "The external account binding is not valid: its key identifier is unknown here or its MAC is wrong.",
    ),
}
"""What is wrong with an issuer, and what people read then."""


@pytest.mark.requirement("C7", "C15")
@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG)
def test_an_issuer_says_what_is_wrong_and_is_ready_once_it_is_mended(
    team: Team, changes: dict[str, Any], said: str
) -> None:
    team.profile(**TRUSTED)
    acme = team.issuer_spec(team.credential())
    issuer = team.issuer({key: value for key, value in {**acme, **changes}.items() if value is not None})
    team.wait(issuer, "condition=Ready=false")
    assert said in team.describe(issuer)
    team.wait(team.issuer(acme))
