"""Published roots: where the CA says and no further, kept, never over what others have made, gone with the CA."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from kms.contract import TRUST_PUBLISHED
from kms.pki.certificate import Signer, certificate_pem
from kms.pki.keys import private_key_pem
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import ConfigMap
from kms.resources.kinds import BUNDLES, CLUSTER_TRUST_BUNDLES, CONFIG_MAPS, Kind
from kms.resources.meta import ObjectMeta, Resource
from kms.resources.secret_names import COMPONENT, MANAGED_BY, OWNER, OWNER_UID, TRUST
from kms.resources.trust import Bundle, ClusterTrustBundle
from kms_operator.indexes import NOT_CHECKED
from kms_operator.plan import REREAD, Denial, Manifest, Plan, Refusal
from kms_operator.reconcilers import certificate_authority, orphans, trust_distribution
from kms_operator.settings import OperatorSettings
from kms_operator.snapshot import Read
from tests.support import pki
from tests.support.operated import (
    DAY,
    NOW,
    RELEASE,
    SETTINGS,
    authority,
    entropy,
    event_reasons,
    namespace,
    pair,
    published,
    secret,
    snapshot_of,
    stated,
    stored,
)

CONDITION = TRUST_PUBLISHED
ROOT = pki.root(not_after=NOW + 4000 * DAY)
OTHER = pki.root(common_name="Other Root", with_key=pki.key(which="other"), not_after=NOW + 4000 * DAY)
PEM, OTHER_PEM = certificate_pem(ROOT.certificate), certificate_pem(OTHER.certificate)
ALLOWED = OperatorSettings(SETTINGS.external_url, RELEASE, trust_from=("pki",))
BETA = CLUSTER_TRUST_BUNDLES[1]
SERVED = {BETA.plural: BETA}

BESIDE = {"configMap": {"name": "example-ca"}}
SELECTED = {
    "configMap": {
        **BESIDE["configMap"],
        "namespaces": {"from": "Selector", "selector": {"matchLabels": {"trust": "yes"}}},
    }
}
EVERYWHERE = {"configMap": {**BESIDE["configMap"], "namespaces": {"from": "All"}}}
BUNDLE = {"bundle": {"name": "example"}}
CLUSTER = {"clusterTrustBundle": {"name": "example"}}
ALL = {**SELECTED, **BUNDLE, **CLUSTER}
TEAMS = (namespace("pki"), namespace("a", trust="yes"), namespace("b", trust="yes"), namespace("c"))


def asking(section: dict[str, Any] | None, *, signer: Signer = ROOT, **more: Any) -> CertificateAuthority:
    return authority(trust=section, status=published(signer, **more.pop("status", {})), **more)


def planned(one: CertificateAuthority, *others: Any, **more: Any) -> Plan:
    now = more.pop("now", NOW)
    snapshot = snapshot_of(one, *others, settings=more.pop("settings", ALLOWED), served=SERVED, **more)
    return trust_distribution.plan(one, snapshot, now=now, entropy=entropy())


def after(plan: Plan, *refusals: Refusal) -> Plan:
    """What is stated once the API server has refused some of the objects."""
    assert plan.on_refusals is not None
    return plan.on_refusals(refusals)


def there(section: dict[str, Any]) -> list[Any]:
    """All that is there after it was published."""
    return [stored(each.object) for each in planned(asking(section), *TEAMS).apply]


def where(manifests: tuple[Manifest, ...]) -> list[tuple[str, str, str]]:
    return [(each.kind.kind, each.object.metadata.namespace, each.object.metadata.name) for each in manifests]


@pytest.mark.requirement("C15")
def test_the_root_is_published_in_a_config_map_where_the_selector_says() -> None:
    one = asking(SELECTED)
    made = planned(one, *TEAMS)
    assert where(made.apply) == [("ConfigMap", "a", "example-ca"), ("ConfigMap", "b", "example-ca")]
    written: Any = made.apply[0].object
    assert written.data == {"ca.crt": PEM}
    assert written.metadata.labels == {MANAGED_BY: "kms-acme", COMPONENT: TRUST, OWNER_UID: one.metadata.uid}
    assert written.metadata.annotations[OWNER] == "CertificateAuthority pki/issuing"
    assert stated(made, CONDITION).status == "True"
    assert stated(made, CONDITION).message == (
        "1 certificate is published in ConfigMap example-ca in 2 namespaces; not in namespace pki, whose labels"
        " spec.trust.configMap.namespaces does not select"
    )
    assert event_reasons(made) == ["Published"]


@pytest.mark.requirement("C15")
def test_a_bundle_and_a_cluster_trust_bundle_hold_the_same() -> None:
    selector = {"matchLabels": {"team": "web"}}
    section = {
        "bundle": {"name": "example", "key": "root.pem", "selector": selector},
        "clusterTrustBundle": {"name": "v1", "signerName": "example.com/web"},
    }
    bundle, cluster = planned(asking(section)).apply
    written: Any = bundle.object
    target = {"configMap": {"key": "root.pem"}, "namespaceSelector": selector}
    assert written.spec == {"sources": [{"inLine": PEM}], "target": target}
    written = cluster.object
    assert (cluster.kind, written.metadata.name) == (BETA, "example.com:web:v1")
    assert written.spec == {"trustBundle": PEM, "signerName": "example.com/web"}


def test_the_condition_counts_all_places() -> None:
    one = asking(ALL)
    assert stated(planned(one, *TEAMS), CONDITION).message == (
        "1 certificate is published in ConfigMap example-ca in 2 namespaces, Bundle example"
        " and ClusterTrustBundle example; not in namespace pki, whose labels spec.trust.configMap.namespaces does not"
        " select"
    )


def test_what_is_as_it_should_be_is_left_alone_with_the_additions_of_others() -> None:
    first, *rest = there(ALL)
    first = msgspec.structs.replace(first, data={**first.data, "more": "theirs"})
    made = planned(asking(ALL), *TEAMS, first, *rest)
    assert (made.apply, made.delete) == ((), ())


@pytest.mark.parametrize("section", [SELECTED, BUNDLE, CLUSTER])
def test_drift_is_repaired(section: dict[str, Any]) -> None:
    first, *rest = there(section)
    field = "data" if isinstance(first, ConfigMap) else "spec"
    wrong = msgspec.structs.replace(first, **{field: {"ca.crt": "another", "trustBundle": "another", "sources": []}})
    (repaired,) = planned(asking(section), *TEAMS, wrong, *rest).apply
    assert getattr(repaired.object, field) == getattr(first, field)
    assert repaired.object.metadata.resource_version == "7"


def test_a_selector_of_a_bundle_that_is_left_out_goes() -> None:
    (bundle,) = there({"bundle": {"name": "example", "selector": {"matchLabels": {"team": "web"}}}})
    (changed,) = planned(asking(BUNDLE), bundle).apply
    written: Any = changed.object
    assert "namespaceSelector" not in written.spec["target"]


@pytest.mark.requirement("C15")
def test_namespaces_that_come_get_the_root_and_those_that_are_selected_no_more_lose_it() -> None:
    teams = (TEAMS[0], TEAMS[1], namespace("b"), namespace("c", trust="yes"))
    made = planned(asking(SELECTED), *teams, *there(SELECTED))
    assert where(made.apply) == [("ConfigMap", "c", "example-ca")]
    assert where(made.delete) == [("ConfigMap", "b", "example-ca")]


def test_a_namespace_that_is_going_gets_nothing() -> None:
    leaving = msgspec.structs.replace(
        TEAMS[1], metadata=msgspec.structs.replace(TEAMS[1].metadata, deletion_timestamp=NOW)
    )
    assert where(planned(asking(SELECTED), leaving).apply) == []


def test_when_the_section_goes_so_does_all_that_was_published_and_the_condition() -> None:
    one = asking(ALL)
    before = planned(one, *TEAMS).status
    after: Any = msgspec.structs.replace(asking(None), status=before)
    made = planned(after, *TEAMS, *there(ALL))
    assert where(made.delete) == [
        ("ConfigMap", "a", "example-ca"),
        ("ConfigMap", "b", "example-ca"),
        ("Bundle", "", "example"),
        ("ClusterTrustBundle", "", "example"),
    ]
    status: Any = made.status
    assert [each.type for each in status.conditions] == ["Ready"]


def test_a_new_name_leaves_nothing_under_the_old_one() -> None:
    made = planned(asking({"configMap": {"name": "new"}}), *TEAMS, *there(BESIDE))
    assert where(made.apply) == [("ConfigMap", "pki", "new")]
    assert where(made.delete) == [("ConfigMap", "pki", "example-ca")]


FOREIGN: list[tuple[dict[str, Any], Resource]] = [
    (BESIDE, ConfigMap(metadata=ObjectMeta(namespace="pki", name="example-ca"), data={"ca.crt": "theirs"})),
    (BUNDLE, Bundle(metadata=ObjectMeta(name="example"))),
    (CLUSTER, ClusterTrustBundle(metadata=ObjectMeta(name="example"))),
]


@pytest.mark.requirement("SEC56")
@pytest.mark.parametrize(("section", "theirs"), FOREIGN, ids=["ConfigMap", "Bundle", "ClusterTrustBundle"])
def test_nothing_is_adopted_or_removed_that_somebody_else_has_made(section: dict[str, Any], theirs: Resource) -> None:
    for asked in (section, None):
        made = planned(asking(asked), theirs)
        assert (made.apply, made.delete) == ((), ())
    one = asking(section)
    plan = planned(one, theirs)
    assert (stated(plan, CONDITION).status, stated(plan, CONDITION).reason) == ("False", "NotOurs")
    assert "was not made by the operator" in stated(plan, CONDITION).message
    assert stated(plan, CONDITION).message.endswith("published in 0 of 1 places")
    assert plan.requeue_at == NOW + REREAD


def test_of_two_cas_that_want_one_name_the_first_keeps_it() -> None:
    other = asking(BESIDE, name="other")
    made = planned(other, *there(BESIDE))
    assert "belongs to CertificateAuthority pki/issuing" in stated(made, CONDITION).message
    assert made.apply == made.delete == ()


def test_one_place_that_is_taken_keeps_no_other_from_the_root() -> None:
    theirs = ConfigMap(metadata=ObjectMeta(namespace="a", name="example-ca"), data={})
    one = asking(SELECTED)
    made = planned(one, *TEAMS, theirs)
    assert where(made.apply) == [("ConfigMap", "b", "example-ca")]
    assert stated(made, CONDITION).message.endswith("; 1 certificate is published in 1 of 2 places")


@pytest.mark.parametrize("section", [SELECTED, EVERYWHERE, BUNDLE, CLUSTER])
def test_a_root_goes_beyond_its_namespace_only_where_the_operator_was_told_so(section: dict[str, Any]) -> None:
    one = asking(section)
    made = planned(one, *TEAMS, *there(section), settings=SETTINGS)
    assert made.apply == ()
    assert where(made.delete) == [where((Manifest(_kind(each), each),))[0] for each in there(section)]
    assert stated(made, CONDITION).reason == "NamespaceNotAllowed"
    assert "--trust-from pki (in the chart operator.trustFrom)" in stated(made, CONDITION).message


def _kind(object_: Resource) -> Any:
    kinds: dict[type[Resource], Kind[Any]] = {ConfigMap: CONFIG_MAPS, Bundle: BUNDLES, ClusterTrustBundle: BETA}
    return kinds[type(object_)]


def test_a_config_map_beside_the_ca_needs_nobody_s_leave() -> None:
    assert where(planned(asking(BESIDE), settings=SETTINGS).apply) == [("ConfigMap", "pki", "example-ca")]


def test_the_release_namespace_needs_no_leave() -> None:
    one = authority(trust=BUNDLE, status=published(ROOT), namespace=RELEASE)
    assert where(planned(one, settings=SETTINGS).apply) == [("Bundle", "", "example")]


def test_an_operator_of_a_few_namespaces_publishes_config_maps_alone() -> None:
    few = OperatorSettings(SETTINGS.external_url, RELEASE, watch_namespaces=("pki", "a"), trust_from=("pki",))
    one = asking({**EVERYWHERE, **BUNDLE})
    made = planned(one, *TEAMS[:2], settings=few)
    assert where(made.apply) == [("ConfigMap", "a", "example-ca"), ("ConfigMap", "pki", "example-ca")]
    assert "--watch-namespace" in stated(made, CONDITION).message


def test_where_no_namespace_is_selected_the_condition_says_so() -> None:
    one = asking(SELECTED)
    assert stated(planned(one, TEAMS[3]), CONDITION).reason == "NoNamespaceSelected"


@pytest.mark.parametrize("plural", ["configmaps", "bundles", "clustertrustbundles"])
def test_a_kind_that_cannot_be_had_keeps_no_other_from_the_root(plural: str) -> None:
    one = asking(ALL)
    made = planned(one, *TEAMS, unavailable={plural: NOT_CHECKED})
    assert plural not in {each.kind.plural for each in made.apply}
    assert len({each.kind.plural for each in made.apply}) == 2
    assert (stated(made, CONDITION).status, stated(made, CONDITION).reason) == (
        "False",
        NOT_CHECKED.reason,
    )
    assert "places" in stated(made, CONDITION).message


def test_a_ca_without_a_certificate_publishes_nothing_and_keeps_what_there_is() -> None:
    one = authority(trust=BESIDE)
    made = planned(one, *there(BESIDE))
    assert (made.apply, made.delete) == ((), ())
    assert stated(made, CONDITION).reason == "WaitingForCertificate"
    snapshot = snapshot_of(one, settings=ALLOWED)
    assert list(trust_distribution.reads(one, snapshot)) == []
    assert list(trust_distribution.reads(asking(BESIDE), snapshot)) == [
        Read(CONFIG_MAPS, "pki", "example-ca", optional=True)
    ]


def test_what_the_api_server_refuses_is_told_with_the_right_that_is_missing() -> None:
    one = asking(SELECTED)
    made = planned(one, *TEAMS)
    said = 'configmaps "example-ca" is forbidden: cannot patch resource "configmaps" in the namespace "a"' + "x" * 9000
    plan = after(made, Refusal(made.apply[0], Denial("Forbidden", said)))
    found = stated(plan, CONDITION)
    assert (found.status, found.reason) == ("False", "Forbidden")
    assert 'cannot patch resource "configmaps" in the namespace "a"' in found.message
    assert "ClusterRole kms-acme-trust" in found.message
    assert found.message.endswith("published in 1 of 2 places")
    assert len(found.message) < 1000
    refused = after(made, Refusal(made.apply[0], Denial("Refused", "field is immutable")))
    assert stated(refused, CONDITION).reason == "Refused"


@pytest.mark.requirement("C15")
def test_a_ca_that_gets_another_root_publishes_both_until_the_overlap_is_over() -> None:
    one = asking(BESIDE, imported="corporate")
    status: Any = certificate_authority.plan(
        one, snapshot_of(one, secret("corporate", data=pair(OTHER))), now=NOW, entropy=entropy()
    ).status
    rotated = msgspec.structs.replace(one, status=status)
    made = planned(rotated, *there(BESIDE))
    written: Any = made.apply[0].object
    assert written.data == {"ca.crt": OTHER_PEM + PEM}
    assert made.requeue_at == NOW + timedelta(hours=720)
    assert "2 certificates are" in stated(made, CONDITION).message
    later = planned(rotated, now=NOW + timedelta(hours=720))
    written = later.apply[0].object
    assert written.data == {"ca.crt": OTHER_PEM}


def test_the_two_reconciliations_of_a_ca_keep_each_other_s_conditions() -> None:
    one = asking(BESIDE, imported="corporate")
    both = msgspec.structs.replace(one, status=planned(one).status)
    key = secret("corporate", data=pair(ROOT))
    plan = certificate_authority.plan(both, snapshot_of(both, key), now=NOW, entropy=entropy())
    assert stated(plan, CONDITION).reason == "Published"
    lost = certificate_authority.plan(both, snapshot_of(both), now=NOW, entropy=entropy())
    assert (stated(lost).reason, stated(lost, CONDITION).reason) == ("SecretNotFound", "Published")
    again = planned(msgspec.structs.replace(both, status=lost.status), *there(BESIDE))
    assert again.status == lost.status
    assert event_reasons(again) == []


@pytest.mark.requirement("SEC59", "SEC64")
def test_no_key_is_published() -> None:
    made = planned(asking(ALL), *TEAMS)
    body = private_key_pem(ROOT.key).decode().splitlines()[1]
    assert body not in msgspec.json.encode([each.object for each in made.apply]).decode()
    assert "PRIVATE" not in msgspec.json.encode([each.object for each in made.apply]).decode()


@pytest.mark.requirement("SEC61")
def test_what_outlived_its_ca_is_swept_as_far_as_it_can_be_seen() -> None:
    left = there(ALL)

    def deleted(*others: Any, **more: Any) -> list[str]:
        absent = [("certificateauthorities", ("pki", "issuing"))]
        snapshot = snapshot_of(*left, *others, served=SERVED, absent=absent, **more)
        plan = orphans.plan(None, snapshot, now=NOW, entropy=entropy())
        return [each.kind.kind for each in plan.delete]

    assert deleted() == ["ConfigMap", "ConfigMap", "Bundle", "ClusterTrustBundle"]
    assert deleted(asking(ALL)) == []
    assert deleted(unavailable={"configmaps": NOT_CHECKED}) == ["Bundle", "ClusterTrustBundle"]
