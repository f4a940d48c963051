"""The operator shows what profiles allow namespaces, and says for which namespace a ready-made issuer is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kms.resources.credentials import EABCredential
from kms.resources.kinds import CREDENTIALS, NAMESPACES, PROFILES, SECRETS
from kms.resources.meta import condition
from kms.resources.profiles import AddressTemplates, CertificateProfile, DNSNameTemplates
from kms_operator.plan import Plan
from kms_operator.reconcilers import certificate_profile, eab_credential
from tests.support.operated import (
    NOW,
    SERVING,
    authority,
    credential,
    entropy,
    event_reasons,
    namespace,
    objects,
    policy,
    profile,
    ready_status,
    snapshot_of,
)
from tests.support.world import World, world

NAMES = {
    "dnsNames": {"allowed": ["*.{namespace}.example.com", "*.{labels.team}.apps.example.com"], "wildcards": "Allow"},
    "ipAddresses": {"allowed": ["10.{labels.site}.0.0/16"]},
}
PATH = "spec.enrollment.acme.allowedNamespaces"
SUSPENDED = [{"namespace": "team-a", "suspended": True}, {"namespace": "team-b"}]


def narrowing(**members: Any) -> CertificateProfile:
    return profile(acme={"allowedNamespaces": {"from": "All", **members}})


def of_credential(one: EABCredential, *others: Any) -> Plan:
    return eab_credential.plan(one, snapshot_of(one, SERVING, *others), now=NOW, entropy=entropy())


def of_profile(one: CertificateProfile, *others: Any) -> Plan:
    there = (authority(status=ready_status()), policy(), SERVING, *others)
    return certificate_profile.plan(one, snapshot_of(one, *there), now=NOW, entropy=entropy())


def message(plan: Plan, type_: str) -> tuple[str, str, str]:
    found = condition(plan.status.conditions, type_)  # type: ignore[union-attr]
    assert found is not None
    return found.status, found.reason, found.message


@pytest.mark.requirement("SEC78")
def test_a_credential_shows_the_names_that_the_profile_allows_its_namespace() -> None:
    one = credential(namespace="team-a")
    plan = of_credential(one, narrowing(names=NAMES), namespace("team-a", team="shop", site="7"))
    assert plan.status.names.dns_names == DNSNameTemplates(  # type: ignore[union-attr]
        allowed=("*.team-a.example.com", "*.shop.apps.example.com"), wildcards="Allow"
    )
    assert plan.status.names.ip_addresses == AddressTemplates(allowed=("10.7.0.0/16",))  # type: ignore[union-attr]
    assert message(plan, "NamesResolved")[:2] == ("True", "NamesResolved")
    assert message(plan, "Ready")[:2] == ("True", "Issued")


@pytest.mark.requirement("SEC78")
@pytest.mark.parametrize(
    ("spec", "there", "reason", "says"),
    [
        ({}, [namespace("team-a", site="7")], "UnusableLabels", "needs the label team, which namespace team-a lacks"),
        ({}, [namespace("team-a", team="a.b", site="7")], "UnusableLabels", 'is "a.b"'),
        ({}, [], "UnknownNamespace", "namespace team-a does not exist"),
        ({"shared": True}, [namespace("team-a", team="a", site="7")], "UnusableLabels", "this one is shared"),
    ],
    ids=["missing", "not usable", "unknown", "shared"],
)
def test_a_credential_says_which_names_it_does_not_get_and_why(
    spec: dict[str, Any], there: list[Any], reason: str, says: str
) -> None:
    plan = of_credential(credential(namespace="team-a", spec=spec), narrowing(names=NAMES), *there)
    found = message(plan, "NamesResolved")
    assert found[:2] == ("False", reason)
    assert says in found[2]
    assert reason in event_reasons(plan)
    assert message(plan, "Ready")[0] == "True"


def test_of_many_names_and_reasons_the_first_are_shown() -> None:
    texts = [f"*.{number}.{{namespace}}.example.com" for number in range(32)]
    plan = of_credential(credential(namespace="a"), narrowing(names={"dnsNames": {"allowed": texts}}), namespace("a"))
    assert len(plan.status.names.dns_names.allowed) == 10  # type: ignore[union-attr]
    assert message(plan, "NamesResolved")[2].endswith("status.names has the first 10")
    labels = [f"{{labels.key-{number}}}.example.com" for number in range(32)]
    unresolved = of_credential(
        credential(namespace="a"), narrowing(names={"dnsNames": {"allowed": labels}}), namespace("a")
    )
    assert message(unresolved, "NamesResolved")[2].endswith("; and 29 more")


def test_without_names_of_the_profile_there_is_nothing_to_show() -> None:
    plan = of_credential(credential(namespace="team-a"), narrowing(), namespace("team-a"))
    assert plan.status.names is None  # type: ignore[union-attr]
    assert condition(plan.status.conditions, "NamesResolved") is None  # type: ignore[union-attr]


@pytest.mark.requirement("SEC78")
def test_the_credential_of_a_tenant_cannot_be_for_the_clients_of_others() -> None:
    one = credential(namespace="team-a", spec={"clientNamespace": "team-b"})
    plan = of_credential(one, narrowing(names=NAMES), namespace("team-a"), namespace("team-b"))
    assert message(plan, "Ready")[:2] == ("False", "ClientNamespaceNotAllowed")
    assert not plan.apply
    own = credential(namespace="team-a", spec={"clientNamespace": "team-a"})
    assert message(of_credential(own, narrowing(), namespace("team-a")), "Ready")[1] == "Issued"


def test_the_namespace_of_the_profile_is_allowed_whatever_is_selected() -> None:
    selecting = narrowing(**{"from": "Selector", "selector": {"matchLabels": {"tenant": "yes"}}})
    plan = of_credential(credential(spec={"clientNamespace": "team-a"}), selecting, namespace("pki"))
    assert message(plan, "Ready")[1] == "Issued"
    other = of_credential(credential(namespace="team-a"), selecting, namespace("team-a"))
    assert message(other, "Ready")[1] == "NamespaceNotAllowed"


@pytest.mark.requirement("SEC78")
@pytest.mark.parametrize(
    "one",
    [credential(namespace="team-a"), credential(spec={"clientNamespace": "team-a"})],
    ids=["of the tenant", "of an issuer"],
)
def test_every_credential_of_a_suspended_namespace_says_so_and_keeps_its_key(one: EABCredential) -> None:
    plan = of_credential(one, narrowing(settings=SUSPENDED), namespace("team-a"), namespace("pki"))
    found = message(plan, "Ready")
    assert found[:2] == ("False", "NamespaceSuspended")
    assert f"{PATH}.settings" in found[2]
    assert objects(plan.apply, SECRETS)
    other = credential(namespace="team-b")
    assert message(of_credential(other, narrowing(settings=SUSPENDED), namespace("team-b")), "Ready")[1] == "Issued"


@pytest.mark.requirement("SEC78")
def test_the_profile_shows_the_suspended_namespaces_and_says_when_that_changes() -> None:
    plan = of_profile(narrowing(settings=SUSPENDED))
    assert plan.status.suspended_namespaces == ("team-a",)  # type: ignore[union-attr]
    assert [each.type for each in plan.events if each.reason == "NamespaceSuspended"] == ["Warning"]
    status = msgspec.to_builtins(plan.status)
    again = of_profile(msgspec.structs.replace(narrowing(settings=SUSPENDED), status=stated_status(status)))
    assert "NamespaceSuspended" not in event_reasons(again)
    resumed = of_profile(msgspec.structs.replace(narrowing(), status=stated_status(status)))
    assert "NamespaceResumed" in event_reasons(resumed)
    assert resumed.status.suspended_namespaces == ()  # type: ignore[union-attr]


def stated_status(status: Any) -> Any:
    return msgspec.convert(status, type(profile().status))


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"names": {"dnsNames": {"allowed": ["a.example.com", "{namespace}-*.test"]}}}, "names.dnsNames.allowed[1]"),
        ({"names": {"ipAddresses": {"allowed": ["10.0.0.1/8"]}}}, "names.ipAddresses.allowed[0]"),
        (
            {"settings": [{"namespace": "a"}, {"namespace": "b", "names": {"dnsNames": {"allowed": ["{x}"]}}}]},
            "settings[1].names.dnsNames.allowed[0]",
        ),
    ],
)
def test_a_profile_with_a_template_that_makes_no_sense_is_not_ready(members: dict[str, Any], field: str) -> None:
    found = message(of_profile(narrowing(**members)), "Ready")
    assert found[:2] == ("False", "InvalidRules")
    assert found[2].startswith(f"{PATH}.{field}: ")


@pytest.mark.requirement("SEC83")
def test_a_profile_with_a_cluster_issuer_is_warned_that_all_namespaces_share_its_account() -> None:
    shared = of_profile(profile(acme={"certManager": {"clusterIssuer": {"name": "web"}}}))
    found = message(shared, "NamespacesSeparated")
    assert found[:2] == ("False", "SharedClusterIssuer")
    assert "use certManager.issuers instead" in found[2]
    assert [each.type for each in shared.events if each.reason == "SharedClusterIssuer"] == ["Warning"]
    separate = of_profile(profile(acme={"certManager": {"issuers": {"name": "web"}}}))
    assert message(separate, "NamespacesSeparated")[0] == "True"
    assert condition(of_profile(profile()).status.conditions, "NamespacesSeparated") is None  # type: ignore[union-attr]


@pytest.mark.requirement("SEC78")
async def test_a_suspension_by_the_profile_outlives_the_credential_and_labels_count_as_they_change() -> None:
    async with world() as running:
        running.api.put(PROFILES, narrowing(names=NAMES, settings=SUSPENDED))
        running.api.put(NAMESPACES, namespace("team-a", team="shop", site="7"))
        for one in (credential(spec={"clientNamespace": "team-a"}), credential("other", "team-b")):
            running.api.put(CREDENTIALS, one)
        await running.reconcile_all()
        assert running.reason() == "NamespaceSuspended"
        # As after a restore with the UIDs of a former cluster: the credential was collected, and is made anew.
        running.api.remove(CREDENTIALS, "pki", "web")
        running.api.remove(SECRETS, "pki", "web-eab")
        await running.reconcile()
        running.api.put(CREDENTIALS, credential(spec={"clientNamespace": "team-a"}, uid="another"))
        await running.reconcile()
        assert running.reason() == "NamespaceSuspended"
        assert shown(running) == ("*.team-a.example.com", "*.shop.apps.example.com")
        running.api.put(NAMESPACES, namespace("team-a", team="market", site="7"))
        await running.reconcile()
        assert shown(running) == ("*.team-a.example.com", "*.market.apps.example.com")


def shown(running: World) -> tuple[str, ...]:
    names = running.credential().status.names
    assert names is not None
    assert names.dns_names is not None
    return names.dns_names.allowed
