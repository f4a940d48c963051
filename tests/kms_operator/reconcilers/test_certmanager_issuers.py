"""Ready-made issuers: made whole, kept, never taken from others, and gone with what asked for them."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from kms.resources.certmanager import Issuer
from kms.resources.credentials import EABCredential
from kms.resources.kinds import CLUSTER_ISSUERS, CREDENTIALS, ISSUERS, SECRETS, Kind
from kms.resources.meta import ObjectMeta, Resource
from kms.resources.profiles import CertificateProfile
from kms.resources.retained import retained
from kms.resources.secret_names import COMPONENT, MANAGED_BY
from kms_operator.indexes import NOT_CHECKED
from kms_operator.plan import Plan
from kms_operator.reconcilers import certificate_profile, certmanager_issuers
from kms_operator.settings import OperatorSettings
from tests.support.operated import (
    NOW,
    RELEASE,
    SERVING,
    SETTINGS,
    entropy,
    event_reasons,
    names,
    namespace,
    objects,
    profile,
    ready_status,
    secret,
    snapshot_of,
    stated,
    stored,
)

CONDITION = certmanager_issuers.CERT_MANAGER_ISSUER
SOLVERS = [{"http01": {"ingress": {"ingressClassName": "nginx"}}}]
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
ALLOWED = OperatorSettings(SETTINGS.external_url, RELEASE, cluster_issuers_from=("pki",))
CLUSTER = {"clusterIssuer": {"name": "web"}, "solvers": SOLVERS}
BESIDE = {"issuers": {"name": "web"}, "solvers": SOLVERS}


def asking(section: dict[str, Any] | None = CLUSTER, **acme: Any) -> CertificateProfile:
    return profile(acme={**({"certManager": section} if section else {}), **acme})


def reconciled(one: CertificateProfile, *others: Any, settings: OperatorSettings = ALLOWED, **more: Any) -> Plan:
    return certificate_profile.plan(
        one, snapshot_of(one, SERVING, *others, settings=settings, **more), now=NOW, entropy=entropy()
    )


def put(plan: Plan, kind: Kind[Any]) -> list[Any]:
    return list(objects(plan.apply, kind))


def written(plan: Plan, directory: str = "web-acme") -> list[Any]:
    """What is written beside the Secret for users."""
    return [each for each in objects(plan.apply) if each.metadata.name != directory]


def keyed(credential: EABCredential, key_id: str = "kid-1") -> tuple[Any, ...]:
    """The credential after its own reconciliation, and its Secret."""
    status = msgspec.convert({**ready_status(), "keyID": key_id}, type(credential.status))
    one = stored(msgspec.structs.replace(credential, status=status))
    data = {"kid": key_id.encode(), "secret": KEY.encode()}
    labels = {MANAGED_BY: "kms-acme", COMPONENT: "eab"}
    return one, secret(one.secret_name, data=data, labels=labels, owner_uids=[one.metadata.uid])


def settled(section: dict[str, Any] = CLUSTER, *others: Any, **acme: Any) -> tuple[Any, ...]:
    """All that is there after an issuer was made."""
    first = reconciled(asking(section, **acme), *others)
    there = [part for each in put(first, CREDENTIALS) for part in keyed(each)]
    second = reconciled(asking(section, **acme), *there, *others)
    copies = [stored(each) for each in put(second, SECRETS) if each.metadata.name.endswith("-kms-acme-eab")]
    issuers = [stored(each) for kind in (CLUSTER_ISSUERS, ISSUERS) for each in put(second, kind)]
    return (*there, *copies, *issuers, *others)


@pytest.mark.requirement("C7")
def test_an_issuer_waits_until_its_credential_has_a_key() -> None:
    plan = reconciled(asking())
    assert (stated(plan, CONDITION).status, stated(plan, CONDITION).reason) == ("False", "WaitingForCredential")
    (credential,) = put(plan, CREDENTIALS)
    assert (credential.metadata.namespace, credential.metadata.name) == ("pki", "web-issuer-cert-manager")
    assert credential.metadata.owner_references[0].uid == "profile-web"
    assert put(plan, CLUSTER_ISSUERS) == []
    assert plan.requeue_at == NOW + timedelta(seconds=60)


@pytest.mark.requirement("C15")
def test_a_cluster_issuer_has_directory_key_trust_and_solvers() -> None:
    (credential,) = put(reconciled(asking()), CREDENTIALS)
    plan = reconciled(asking({**CLUSTER, "email": "pki@example.com"}), *keyed(credential))
    (issuer,) = put(plan, CLUSTER_ISSUERS)
    assert (issuer.metadata.namespace, issuer.metadata.name) == ("", "web")
    assert issuer.spec == {
        "acme": {
            "server": "https://acme.example.com/acme/pki/web/directory",
            "privateKeySecretRef": {"name": "web-account-key"},
            "solvers": SOLVERS,
            "email": "pki@example.com",
            "caBundle": base64.b64encode(b"the serving CA").decode(),
            "externalAccountBinding": {"keyID": "kid-1", "keySecretRef": {"name": "web-kms-acme-eab", "key": "secret"}},
        }
    }
    copy = put(plan, SECRETS)[-1]
    assert (names([copy]), copy.data) == (["cert-manager/web-kms-acme-eab"], {"secret": KEY.encode()})
    assert stated(plan, CONDITION).reason == "Issued"
    assert "Issued" in event_reasons(plan)


def test_what_is_as_it_should_be_is_left_alone_with_the_defaults_of_others() -> None:
    *others, issuer = settled()
    spec = {**issuer.spec, "acme": {**issuer.spec["acme"], "disableAccountKeyGeneration": False}}
    plan = reconciled(asking(), *others, msgspec.structs.replace(issuer, spec=spec))
    assert (written(plan), plan.delete) == ([], ())
    assert stated(plan, CONDITION).status == "True"


@pytest.mark.parametrize(
    "changed",
    [
        {**CLUSTER, "email": "new@example.com"},
        {**CLUSTER, "solvers": [{"http01": {}}]},
        {"clusterIssuer": {"name": "web"}},
    ],
)
def test_an_issuer_follows_its_profile_also_where_something_is_left_out(changed: dict[str, Any]) -> None:
    plan = reconciled(asking(changed), *settled())
    (issuer,) = put(plan, CLUSTER_ISSUERS)
    assert issuer.metadata.resource_version == "7"
    assert issuer.spec["acme"]["solvers"] == changed.get("solvers", [])


def test_drift_is_repaired() -> None:
    *others, issuer = settled()
    spec = {"acme": {**issuer.spec["acme"], "server": "https://elsewhere.example.com"}}
    (repaired,) = put(reconciled(asking(), *others, msgspec.structs.replace(issuer, spec=spec)), CLUSTER_ISSUERS)
    assert repaired.spec == issuer.spec


def test_a_new_key_reaches_copy_and_issuer() -> None:
    credential, _, *others = settled()
    plan = reconciled(asking(), *keyed(credential, "kid-2"), *others)
    (issuer,) = put(plan, CLUSTER_ISSUERS)
    assert issuer.spec["acme"]["externalAccountBinding"]["keyID"] == "kid-2"


def test_without_binding_there_is_neither_credential_nor_key() -> None:
    plan = reconciled(asking(externalAccountBinding="Disabled"))
    (issuer,) = put(plan, CLUSTER_ISSUERS)
    assert len(written(plan)) == 1
    assert "externalAccountBinding" not in issuer.spec["acme"]


@pytest.mark.requirement("SEC72")
def test_solvers_that_are_too_large_are_reported_and_the_issuer_stays() -> None:
    large = {**CLUSTER, "solvers": [{"dns01": {"webhook": "w" * 70_000}}]}
    kept = [retained(each) for each in (asking(large), *settled())]
    plan = reconciled(*kept)
    assert stated(plan, CONDITION).reason == "SolversTooLarge"
    assert (put(plan, CLUSTER_ISSUERS), objects(plan.delete)) == ([], ())


def foreign(kind: str, **metadata: Any) -> Resource:
    if kind == "issuer":
        return Issuer(metadata=ObjectMeta(name="web", resource_version="3", **metadata), spec={"acme": {}})
    if kind == "credential":
        meta = ObjectMeta(namespace="pki", name="web-issuer-cert-manager", resource_version="3", **metadata)
        return msgspec.convert(
            {"metadata": meta, "spec": {"profileRef": {"name": "web"}}}, EABCredential, from_attributes=True
        )
    return secret("web-kms-acme-eab", "cert-manager", data={"secret": b"theirs"})


@pytest.mark.requirement("SEC56")
@pytest.mark.parametrize("kind", ["issuer", "credential", "secret"])
def test_nothing_is_adopted_or_removed_that_somebody_else_has_made(kind: str) -> None:
    theirs = foreign(kind)
    for one in (asking(), asking(None)):
        plan = reconciled(one, theirs)
        assert theirs.metadata.name not in {each.object.metadata.name for each in (*plan.apply, *plan.delete)}
        assert "cert-manager/web-kms-acme-eab" not in names(objects((*plan.apply, *plan.delete)))
    update = stated(reconciled(asking(), theirs), CONDITION)
    assert (update.status, update.reason) == ("False", "NotOurs")
    assert theirs.metadata.name in update.message


def test_of_two_profiles_that_want_one_name_the_first_keeps_it() -> None:
    there = settled()
    other = profile("other", acme={"certManager": CLUSTER})
    plan = reconciled(other, *there)
    assert stated(plan, CONDITION).reason == "NotOurs"
    assert "CertificateProfile pki/web" in stated(plan, CONDITION).message
    assert (written(plan, "other-acme"), plan.delete) == ([], ())


def test_without_cert_manager_the_condition_says_that_it_waits() -> None:
    plan = reconciled(asking(), unavailable={"clusterissuers": NOT_CHECKED})
    assert (stated(plan, CONDITION).status, stated(plan, CONDITION).reason) == ("False", NOT_CHECKED.reason)
    assert written(plan) == []
    assert "Issued" not in event_reasons(plan)


def test_when_the_section_goes_so_does_all_that_was_made() -> None:
    plan = reconciled(asking(None), *settled())
    assert [(each.kind, each.object.metadata.name) for each in plan.delete] == [
        (CLUSTER_ISSUERS, "web"),
        (CREDENTIALS, "web-issuer-cert-manager"),
        (SECRETS, "web-kms-acme-eab"),
    ]


def test_a_new_name_leaves_nothing_under_the_old_one() -> None:
    plan = reconciled(asking({"clusterIssuer": {"name": "other"}}), *settled())
    assert [each.object.metadata.name for each in put_away(plan)] == ["web"]
    assert [each.metadata.name for each in put(plan, CLUSTER_ISSUERS)] == ["other"]


def put_away(plan: Plan) -> list[Any]:
    return [each for each in plan.delete if each.kind in {CLUSTER_ISSUERS, ISSUERS}]


SELECTED = {
    "issuers": {"name": "web", "namespaces": {"from": "Selector", "selector": {"matchLabels": {"acme": "yes"}}}}
}
TEAMS = (namespace("a", acme="yes"), namespace("b", acme="yes"), namespace("c"))


def test_issuers_are_made_where_the_selector_says_each_with_a_key_of_its_own() -> None:
    there = settled(SELECTED, *TEAMS)
    assert {each.metadata.namespace for each in there if isinstance(each, Issuer)} == {"a", "b"}
    assert {each.metadata.name for each in there if isinstance(each, EABCredential)} == {"web-issuer-a", "web-issuer-b"}


def test_the_condition_says_that_the_selector_leaves_out_the_namespace_of_the_profile() -> None:
    there = settled(SELECTED, *TEAMS)
    message = stated(reconciled(asking(SELECTED), *there), CONDITION).message
    assert "not in namespace pki, whose labels spec.enrollment.acme.certManager.issuers.namespaces does not" in message
    there = settled(SELECTED, *TEAMS, namespace("pki", acme="yes"))
    assert "not in namespace" not in stated(reconciled(asking(SELECTED), *there), CONDITION).message


def test_a_namespace_that_is_selected_no_more_loses_issuer_and_key() -> None:
    *there, _, _, _ = settled(SELECTED, *TEAMS)
    plan = reconciled(asking(SELECTED), *there, TEAMS[0], namespace("b"))
    assert names(objects(plan.delete)) == ["b/web", "pki/web-issuer-b", "b/web-kms-acme-eab"]


@pytest.mark.parametrize("section", [CLUSTER, SELECTED, {"issuers": {"name": "web", "namespaces": {"from": "All"}}}])
def test_a_profile_reaches_beyond_its_namespace_only_where_the_operator_was_told_so(section: dict[str, Any]) -> None:
    plan = reconciled(asking(section), *TEAMS, settings=SETTINGS)
    assert stated(plan, CONDITION).reason == "NamespaceNotAllowed"
    said = "--cluster-issuers-from pki (in the chart certManager.clusterIssuersFrom)"
    assert said in stated(plan, CONDITION).message
    assert written(plan) == []


def test_an_issuer_beside_the_profile_needs_nobody_s_leave() -> None:
    plan = reconciled(asking(BESIDE), settings=SETTINGS)
    assert [each.metadata.name for each in put(plan, CREDENTIALS)] == ["web-issuer-pki"]


def test_leave_that_is_taken_back_takes_the_issuer_along() -> None:
    plan = reconciled(asking(), *settled(), settings=SETTINGS)
    assert [each.kind for each in plan.delete] == [CLUSTER_ISSUERS, CREDENTIALS, SECRETS]


def test_an_operator_of_a_few_namespaces_makes_no_cluster_issuer() -> None:
    few = OperatorSettings(SETTINGS.external_url, RELEASE, watch_namespaces=("pki",), cluster_issuers_from=("pki",))
    plan = reconciled(asking(), settings=few)
    assert stated(plan, CONDITION).reason == "NamespaceNotAllowed"
    assert "--watch-namespace" in stated(plan, CONDITION).message


def test_the_key_is_in_no_condition_notice_or_issuer() -> None:
    plan = reconciled(asking(), *settled()[:2])
    shown = msgspec.json.encode(
        [plan.status, [each.object for each in plan.apply if each.kind is not SECRETS]]
    ).decode()
    assert KEY not in shown + "".join(each.message for each in plan.events)


@pytest.mark.requirement("SEC78", "SEC83")
@pytest.mark.parametrize(
    ("section", "others", "clients"),
    [
        (CLUSTER, (), [(None, True)]),
        (BESIDE, (), [("pki", False)]),
        (
            {"issuers": {"name": "web", "namespaces": {"from": "All"}}},
            (namespace("a"), namespace("b")),
            [("a", False), ("b", False)],
        ),
    ],
    ids=["all namespaces", "the namespace of the profile", "each namespace"],
)
def test_the_credential_of_an_issuer_names_its_clients(
    section: dict[str, Any], others: tuple[Any, ...], clients: list[tuple[str | None, bool]]
) -> None:
    made = put(reconciled(asking(section), *others), CREDENTIALS)
    assert [(each.spec.client_namespace, each.spec.shared) for each in made] == clients
    # Those of an earlier release say nothing: they are corrected, with what an administrator has added.
    older = [
        stored(
            msgspec.structs.replace(each, spec=msgspec.structs.replace(each.spec, client_namespace=None, shared=False))
        )
        for each in made
    ]
    corrected = put(reconciled(asking(section), *others, *older), CREDENTIALS)
    assert [(each.spec.client_namespace, each.spec.shared) for each in corrected] == clients
