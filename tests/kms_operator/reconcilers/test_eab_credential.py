"""EABCredentials: one key in force, where users find it and where the server does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kms.resources.core import Secret
from kms.resources.credentials import EABCredential
from kms.resources.kinds import CREDENTIALS, PROFILES, SECRETS
from kms.resources.meta import Struct, key_of
from kms.resources.retained import retained
from kms.resources.secret_names import (
    COMPONENT,
    MANAGED_BY,
    OWNER_UID,
    VERIFICATION_KEY,
    verification_key_name,
)
from kms_operator.plan import REREAD, Plan
from kms_operator.reconcilers import eab_credential
from kms_operator.reconcilers.eab_copies import verification_copy
from kms_operator.reconcilers.eab_keys import BindingKey
from kms_operator.snapshot import Read
from tests.support.operated import (
    NOW,
    RELEASE,
    SERVING,
    credential,
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
    unread,
)

KEY = BindingKey("kid-1", "A" * 43)
OTHER = BindingKey("kid-2", "B" * 43)


def reconciled(one: EABCredential, *others: Any, seed: str = "", **more: Any) -> Plan:
    return eab_credential.plan(one, snapshot_of(one, *others, **more), now=NOW, entropy=entropy(seed))


def issued(one: EABCredential | None = None, key: BindingKey = KEY) -> tuple[EABCredential, Secret, Secret]:
    """A credential with its key in place: the user's Secret, and the copy."""
    one = one or credential(status={**ready_status(), "keyID": key.key_id})
    snapshot = snapshot_of(one, profile())
    return (
        one,
        stored(eab_credential.credential_secret(one, profile(), key, snapshot)),
        stored(verification_copy(one, profile(), key, snapshot)),
    )


def key_id(plan: Plan) -> str | None:
    status: Any = plan.status
    assert isinstance(status, Struct)
    return status.key_id  # type: ignore[no-any-return, attr-defined]


def test_a_new_credential_gets_a_key_that_the_server_has_before_the_user() -> None:
    plan = reconciled(credential(), profile(), SERVING)
    copy, shown = objects(plan.apply)
    kid = key_id(plan)
    assert kid is not None
    assert names(objects(plan.apply)) == [f"{RELEASE}/{verification_key_name('pki', 'web', kid)}", "pki/web-eab"]
    assert copy.data == {"kid": kid.encode(), "secret": shown.data["secret"]}
    assert copy.metadata.labels[OWNER_UID] == "uid-pki-web"
    assert shown.data["directory-url"] == b"https://acme.example.com/acme/pki/web/directory"
    assert shown.data["ca.crt"] == b"the serving CA"
    assert shown.metadata.owner_references[0].uid == "uid-pki-web"
    assert not any(each.metadata.resource_version for each in objects(plan.apply))
    assert (stated(plan).status, stated(plan).reason) == ("True", "Issued")
    assert event_reasons(plan) == ["Issued"]


@pytest.mark.requirement("SEC12b", "SEC64")
def test_the_key_is_in_no_condition_and_no_notice() -> None:
    plan = reconciled(credential(), profile())
    text = objects(plan.apply)[1].data["secret"].decode()
    assert text not in repr(plan.status)
    assert text not in repr(plan.events)
    assert text not in repr(plan)


def test_a_credential_with_its_key_in_place_is_left_alone() -> None:
    plan = reconciled(*issued(), profile())
    assert (objects(plan.apply), objects(plan.delete), event_reasons(plan)) == ((), (), [])
    assert key_id(plan) == KEY.key_id


@pytest.mark.requirement("SEC12b")
def test_deleting_the_secret_voids_the_old_key_and_makes_a_new_one() -> None:
    one, _, copy = issued()
    plan = reconciled(one, copy, profile())
    assert objects(plan.delete) == (copy,)
    assert key_id(plan) not in {None, KEY.key_id}
    assert len(objects(plan.apply)) == 2
    assert event_reasons(plan) == ["Rotated"]


def test_a_crash_after_the_copy_leaves_no_second_key_in_force() -> None:
    one = credential()
    orphan = stored(verification_copy(one, profile(), KEY, snapshot_of()))
    plan = reconciled(one, orphan, profile())
    assert objects(plan.delete) == (orphan,)
    assert key_id(plan) != KEY.key_id


def test_a_changed_secret_gets_its_key_back_from_the_copy() -> None:
    one, shown, copy = issued()
    shown.data["secret"] = b"C" * 43
    plan = reconciled(one, shown, copy, profile())
    assert objects(plan.apply)[0].data["secret"] == KEY.secret.encode()
    assert objects(plan.apply)[0].metadata.resource_version == shown.metadata.resource_version
    assert event_reasons(plan) == ["Repaired"]


def test_another_key_in_our_secret_does_not_win_over_the_copy() -> None:
    one, shown, copy = issued()
    shown.data.update(OTHER.data)
    plan = reconciled(one, shown, copy, profile())
    assert key_id(plan) == KEY.key_id
    assert objects(plan.apply)[0].data["kid"] == KEY.key_id.encode()


def test_of_two_copies_the_one_in_force_is_kept() -> None:
    one, shown, copy = issued()
    newer = stored(verification_copy(one, profile(), OTHER, snapshot_of()))
    shown.data["secret"] = b"!"
    plan = reconciled(one, shown, newer, copy, profile())
    assert key_id(plan) == KEY.key_id
    assert objects(plan.delete) == (newer,)


def test_a_lost_copy_comes_back_from_the_users_secret() -> None:
    one, shown, copy = issued()
    plan = reconciled(one, shown, profile())
    assert names(objects(plan.apply)) == names([copy])
    assert objects(plan.apply)[0].data == KEY.data


def test_a_copy_that_was_changed_is_no_truth_any_more() -> None:
    one, shown, copy = issued()
    copy.data["kid"] = b"kid-9"
    plan = reconciled(one, shown, copy, profile())
    assert names(objects(plan.apply)) == names([copy])
    assert objects(plan.apply)[0].data == KEY.data
    assert objects(plan.apply)[0].metadata.resource_version == copy.metadata.resource_version


def test_where_neither_is_readable_a_new_key_is_made() -> None:
    one, shown, copy = issued()
    shown.data["secret"] = copy.data["secret"] = b"short"
    plan = reconciled(one, shown, copy, profile())
    assert key_id(plan) != KEY.key_id
    assert objects(plan.delete) == (copy,)
    assert event_reasons(plan) == ["Rotated"]


def test_a_secret_of_ours_that_lost_its_owner_gets_it_back() -> None:
    one, shown, copy = issued()
    bare = secret("web-eab", data=shown.data, labels=shown.metadata.labels, version=9)
    plan = reconciled(one, bare, copy, profile())
    assert objects(plan.apply)[0].metadata.owner_references[0].uid == one.metadata.uid
    assert key_id(plan) == KEY.key_id


def test_a_key_that_a_user_has_brought_is_used_and_its_secret_not_touched() -> None:
    brought = secret("web-eab", data=KEY.data)
    plan = reconciled(credential(), brought, profile())
    assert names(objects(plan.apply)) == [f"{RELEASE}/{verification_key_name('pki', 'web', 'kid-1')}"]
    assert objects(plan.apply)[0].data == KEY.data
    assert stated(plan).reason == "Issued"
    assert plan.requeue_at == NOW + REREAD


@pytest.mark.parametrize(("managed", "seconds"), [(True, 8), (False, 20)])
def test_secrets_that_users_have_brought_are_read_the_later_the_more_of_them_there_are(
    managed: bool,
    seconds: int,
) -> None:
    names = [f"other-{number}" for number in range(200)]
    others = [credential(each) for each in names]
    labels = {MANAGED_BY: "kms-acme"}
    watched = [secret(f"{each}-eab", data={}, labels=labels) for each in names] if managed else []
    plan = reconciled(credential(), secret("web-eab", data=KEY.data), profile(), *others, *watched)
    assert plan.requeue_at == NOW + timedelta(seconds=seconds)


def test_a_brought_key_that_is_replaced_voids_the_one_before() -> None:
    one, _, copy = issued()
    plan = reconciled(one, secret("web-eab", data=OTHER.data), copy, profile())
    assert objects(plan.delete) == (copy,)
    assert key_id(plan) == "kid-2"


def test_a_bad_key_that_a_user_has_brought_is_refused_and_nothing_is_written() -> None:
    plan = reconciled(credential(), secret("web-eab", data={"kid": b"x", "secret": b"hunter2\n"}), profile())
    assert (objects(plan.apply), stated(plan).reason) == ((), "InvalidSecret")
    assert "line break" in stated(plan).message
    assert "hunter2" not in repr(plan)


def test_a_secret_without_a_key_that_is_not_ours_is_not_overwritten() -> None:
    plan = reconciled(credential(), secret("web-eab", data={"password": b"x"}), profile())
    assert (objects(plan.apply), stated(plan).reason) == ((), "InvalidSecret")
    assert "no key 'kid'" in stated(plan).message


def test_the_secret_of_another_resource_is_not_taken() -> None:
    theirs = secret("web-eab", data=KEY.data, labels={MANAGED_BY: "kms-acme"}, owner_uids=["somebody"])
    plan = reconciled(credential(), theirs, profile())
    assert (objects(plan.apply), stated(plan).reason) == ((), "SecretExists")
    assert "spec.secretName" in stated(plan).message


def test_who_claims_a_key_identifier_first_keeps_it() -> None:
    first, _, copy = issued(credential("first"))
    second = credential("second", created=NOW)
    plan = reconciled(second, secret("second-eab", data={**OTHER.data, "kid": b"kid-1"}), first, copy, profile())
    assert (objects(plan.apply), objects(plan.delete)) == ((), ())
    assert stated(plan).reason == "KeyIDInUse"
    assert "first" not in stated(plan).message, "tenants do not learn each other's names"


@pytest.mark.requirement("SEC12b")
def test_nobody_takes_over_an_identifier_through_a_secret_of_ours() -> None:
    victim, _, copy = issued(credential("victim"))
    mine, shown, _ = issued(credential("mine"), OTHER)
    shown.data["kid"] = b"kid-1"
    plan = reconciled(mine, shown, victim, copy, profile())
    assert key_id(plan) != "kid-1"
    assert copy.metadata.name not in [each.metadata.name for each in objects(plan.apply)]


def test_an_identifier_whose_credential_is_gone_is_free_again_when_the_copy_is_gone() -> None:
    _, _, copy = issued(credential("gone"))
    second = credential("second")
    brought = secret("second-eab", data=KEY.data)
    assert stated(reconciled(second, brought, copy, profile())).reason == "KeyIDInUse"
    plan = reconciled(second, brought, profile())
    assert stated(plan).reason == "Issued"
    assert objects(plan.apply)[0].metadata.labels[OWNER_UID] == second.metadata.uid


def test_a_credential_that_was_created_again_takes_over_the_copy_of_a_key_that_its_user_has_brought() -> None:
    _, _, copy = issued(credential("gone"))
    again = credential("gone", uid="again")
    plan = reconciled(again, secret("gone-eab", data=KEY.data), copy, profile())
    assert stated(plan).reason == "Issued"
    assert objects(plan.apply)[0].metadata.labels[OWNER_UID] == "again"
    assert objects(plan.apply)[0].metadata.resource_version == copy.metadata.resource_version


def test_another_secret_name_removes_the_secret_under_the_old_one() -> None:
    one = credential(spec={"secretName": "renamed"})
    _, old, copy = issued(credential())
    plan = reconciled(one, old, copy, profile())
    assert set(names(objects(plan.delete))) == {"pki/web-eab", *names([copy])}
    assert names(objects(plan.apply))[1] == "pki/renamed"


def test_another_profile_moves_the_copy() -> None:
    one, shown, copy = issued()
    moved = credential(spec={"profileRef": {"name": "internal"}}, status={"keyID": KEY.key_id})
    plan = reconciled(moved, shown, copy, profile("internal"))
    assert objects(plan.delete) == (copy,)
    assert names(objects(plan.apply))[0] == f"{RELEASE}/{verification_key_name('pki', 'internal', 'kid-1')}"
    assert one.metadata.uid == moved.metadata.uid


def test_without_its_profile_a_credential_keeps_its_key_and_says_why_it_is_of_no_use() -> None:
    plan = reconciled(*issued())
    assert (stated(plan).reason, objects(plan.delete), key_id(plan)) == ("ProfileNotFound", (), KEY.key_id)


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ({"name": "web"}, "; if it is in another namespace, set spec.profileRef.namespace"),
        ({"name": "web", "namespace": "pki"}, ""),
    ],
)
def test_a_profile_that_is_looked_for_in_the_wrong_namespace_has_a_hint(reference: dict[str, str], hint: str) -> None:
    plan = reconciled(credential(spec={"profileRef": reference}))
    assert stated(plan).message == f"CertificateProfile pki/web does not exist{hint}"


@pytest.mark.parametrize("broken", [profile(enrolls=False), profile(acme={"externalAccountBinding": "Disabled"})])
def test_a_profile_that_binds_no_accounts_makes_a_credential_useless(broken: Any) -> None:
    assert stated(reconciled(*issued(), broken)).reason == "ExternalAccountBindingDisabled"


def selecting(operator: str, *values: str) -> dict[str, Any]:
    requirement = {"key": "team", "operator": operator, **({"values": list(values)} if values else {})}
    return {"from": "Selector", "selector": {"matchExpressions": [requirement]}}


@pytest.mark.requirement("SEC12c", "SEC77")
@pytest.mark.parametrize(
    ("rule", "labels", "allowed"),
    [
        ({"from": "Same"}, {}, False),
        ({"from": "All"}, {}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "web"}}}, {"team": "web"}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "web"}}}, {"team": "db"}, False),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "web"}}}, None, False),
        ({"from": "Selector", "selector": {}}, {}, True),
        ({"from": "Selector"}, {}, False),
        (selecting("NotIn", "prod"), {"team": "web"}, True),
        (selecting("NotIn", "prod"), {}, True),
        (selecting("NotIn", "prod"), {"team": "prod"}, False),
        (selecting("NotIn", "prod"), None, False),
        (selecting("DoesNotExist"), {}, True),
        (selecting("DoesNotExist"), None, False),
        ({"from": "Selector", "selector": {}}, None, False),
    ],
)
def test_credentials_live_only_where_the_profile_allows(
    rule: dict[str, Any], labels: dict[str, str] | None, allowed: bool
) -> None:
    """SEC12c: who may create an EABCredential in a namespace cannot mint for any profile."""
    snapshot = [profile(acme={"allowedNamespaces": rule})]
    there = [] if labels is None else [namespace("team-a", **labels)]
    plan = reconciled(credential("web", "team-a"), *snapshot, *there)
    assert (stated(plan).reason == "Issued") is allowed
    assert bool(objects(plan.apply)) is allowed
    assert allowed or stated(plan).reason == "NamespaceNotAllowed"
    assert (labels is None) is ("are not known yet" in stated(plan).message)


@pytest.mark.requirement("SEC12c")
def test_a_namespace_that_is_allowed_no_longer_loses_its_key_at_once() -> None:
    one = credential("web", "team-a", status={"keyID": KEY.key_id})
    _, shown, copy = issued(one)
    plan = reconciled(one, shown, copy, profile())
    assert objects(plan.delete) == (copy,)
    assert key_id(plan) is None


@pytest.mark.requirement("SEC12b")
def test_it_expires_at_the_moment_that_was_said() -> None:
    soon = NOW + timedelta(minutes=5)
    one, shown, copy = issued(credential(spec={"expiresAt": soon.isoformat()}, status={"keyID": KEY.key_id}))
    before = reconciled(one, shown, copy, profile())
    assert (stated(before).status, before.requeue_at) == ("True", soon)
    after = eab_credential.plan(one, snapshot_of(one, shown, copy, profile()), now=soon, entropy=entropy())
    assert (stated(after).reason, after.requeue_at) == ("Expired", None)
    assert "2026-11-23T12:05:00Z" in stated(after).message
    assert "change spec.expiresAt" in stated(after).message


def test_a_suspended_credential_says_so() -> None:
    one, shown, copy = issued(credential(spec={"suspended": True}))
    assert stated(reconciled(one, shown, copy, profile())).reason == "Suspended"


def test_names_that_make_no_sense_void_the_key() -> None:
    one, shown, copy = issued(credential(spec={"names": {"ipAddresses": {"allowed": ["10.0.0.0/33"]}}}))
    plan = reconciled(one, shown, copy, profile())
    assert (stated(plan).reason, objects(plan.delete)) == ("InvalidRules", (copy,))
    assert stated(plan).message.startswith("spec.names.ipAddresses.allowed")


@pytest.mark.requirement("SEC74")
def test_names_that_take_too_long_to_compare_are_not_ready_but_keep_the_key() -> None:
    patterns = [f"*w*{number}*.example.com" for number in range(300)]
    one, shown, copy = issued(credential(spec={"names": {"dnsNames": {"allowed": patterns}}}))
    plan = reconciled(one, shown, copy, profile())
    assert (stated(plan).reason, objects(plan.delete)) == ("RulesTooCostly", ())
    assert stated(plan).message.startswith("spec.names.dnsNames.allowed: ")


def test_names_that_make_sense_are_no_obstacle() -> None:
    one = credential(spec={"names": {"dnsNames": {"allowed": ["shop.apps.example.com"]}}})
    assert stated(reconciled(one, profile())).reason == "Issued"


def test_its_accounts_are_counted() -> None:
    one, shown, copy = issued()
    status: Any = reconciled(one, shown, copy, profile(), accounts={key_of(one): 3}).status
    assert status.accounts == 3


def test_the_controller_is_told_which_secrets_to_be_sure_of() -> None:
    assert list(eab_credential.reads(credential(), snapshot_of(profile()))) == [
        Read(SECRETS, "pki", "web-eab", optional=True),
        Read(SECRETS, RELEASE, "kms-acme-serving"),
    ]


def test_other_secrets_of_the_credential_are_no_copies() -> None:
    one, shown, copy = issued()
    other = secret("other", RELEASE, labels={OWNER_UID: one.metadata.uid, COMPONENT: "something"})
    assert objects(reconciled(one, shown, copy, other, profile()).delete) == ()
    assert copy.metadata.labels[COMPONENT] == VERIFICATION_KEY


@pytest.mark.requirement("SEC82")
def test_a_profile_that_cannot_be_read_leaves_the_key_in_place() -> None:
    plan = reconciled(*issued(), unreadable=[(PROFILES, unread(profile()))])
    assert (stated(plan).reason, objects(plan.delete), key_id(plan)) == ("Unreadable", (), KEY.key_id)
    assert "CertificateProfile pki/web cannot be read: spec.expiresAt" in stated(plan).message


@pytest.mark.requirement("SEC77", "SEC82")
def test_the_key_of_a_credential_that_cannot_be_read_is_nobody_elses() -> None:
    holder, _, copy = issued()
    other = credential("other")
    mine = secret("other-eab", data=KEY.data)
    kept = reconciled(other, mine, copy, profile(), unreadable=[(CREDENTIALS, unread(holder))])
    assert (stated(kept).reason, objects(kept.apply)) == ("KeyIDInUse", ())


@pytest.mark.requirement("SEC80")
def test_a_profile_beyond_the_limit_of_its_namespace_leaves_the_keys_of_other_namespaces_in_place() -> None:
    """Its settings are not cached, so they do not say that the namespace is not allowed."""
    beyond = {**ready_status("ProfileLimitReached", "False"), "observedGeneration": 1}
    whole = profile(acme={"allowedNamespaces": {"from": "All"}}, status=beyond)
    one, shown, copy = issued(credential(namespace="team", status={**ready_status(), "keyID": KEY.key_id}))
    plan = reconciled(one, shown, copy, retained(whole))
    assert (stated(plan).reason, objects(plan.delete), key_id(plan)) == ("ProfileNotReady", (), KEY.key_id)
