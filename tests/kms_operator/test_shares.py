"""What one namespace creates by the thousand costs the others neither time nor room."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from kms.resources.credentials import EABCredential
from kms.resources.kept import kept_until
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, POLICIES, PROFILES, SECRETS, Kind
from kms.resources.meta import Key
from kms.resources.secret_names import signing_key_name
from kms_operator.cache import Cache
from kms_operator.objects import internal_secret
from kms_operator.reconcilers import certificate_authority, eab_credential, orphans
from kms_operator.reconcilers.eab_copies import verification_copy
from kms_operator.reconcilers.eab_keys import BindingKey
from kms_operator.settings import OperatorSettings
from kms_operator.snapshot import Snapshot
from kms_operator.triggers import find_affected
from tests.support.operated import (
    NOW,
    RELEASE,
    SERVING,
    SETTINGS,
    authority,
    credential,
    entropy,
    objects,
    policy,
    profile,
    ready_status,
    secret,
    snapshot_of,
    stated,
    stored,
)
from tests.support.world import World, world

MANY = 2_000


class CountingCache(Cache):
    """Counts the objects that it hands out in lists."""

    def __init__(self) -> None:
        super().__init__()
        self.handed_out = 0

    def all(self, kind: Kind[Any]) -> Mapping[Key, Any]:
        found = super().all(kind)
        self.handed_out += len(found)
        return found

    def by_index(self, kind: Kind[Any], index: str, value: Hashable) -> list[Any]:
        found = super().by_index(kind, index, value)
        self.handed_out += len(found)
        return found


def with_key(name: str, namespace: str = "busy") -> tuple[EABCredential, tuple[Any, ...]]:
    """A credential that has its key, and its two Secrets."""
    key = BindingKey(f"kid-{name}", "A" * 43)
    one = credential(name, namespace, status={**ready_status(), "keyID": key.key_id})
    snapshot = snapshot_of(one, open_profile())
    return one, (
        stored(eab_credential.credential_secret(one, open_profile(), key, snapshot)),
        stored(verification_copy(one, open_profile(), key, snapshot)),
    )


def open_profile(maximum: int = 100_000) -> Any:
    """A profile that all namespaces may use."""
    return profile(acme={"allowedNamespaces": {"from": "All"}, "maximumCredentials": maximum})


def busy_cache(count: int) -> CountingCache:
    """A cache with so many credentials, each with its Secrets."""
    cache = CountingCache()
    cache.put(PROFILES, open_profile())
    cache.put(SECRETS, SERVING)
    for number in range(count):
        one, secrets = with_key(f"c{number}")
        cache.put(CREDENTIALS, one)
        for each in secrets:
            cache.put(SECRETS, each)
    return cache


def cost_of(cache: CountingCache, act: Callable[[Snapshot], object]) -> int:
    """How many objects `act` looks at."""
    before = cache.handed_out
    act(Snapshot(replace(SETTINGS, maximum_secrets=10**6, maximum_secrets_per_namespace=10**6), cache))
    return cache.handed_out - before


def handle_new_credential(snapshot: Snapshot) -> None:
    """What the controller does for the event of a new credential, and for that of its Secret."""
    new = credential("new", "busy")
    snapshot.index.put(CREDENTIALS, new)  # type: ignore[attr-defined]
    assert list(find_affected(CREDENTIALS, new, snapshot.index, release=RELEASE))
    list(eab_credential.reads(new, snapshot))
    plan = eab_credential.plan(new, snapshot, now=NOW, entropy=entropy())
    assert stated(plan).reason == "Issued"
    for each in objects(plan.apply):
        snapshot.index.put(SECRETS, stored(each))  # type: ignore[attr-defined]
        list(find_affected(SECRETS, stored(each), snapshot.index, release=RELEASE))


@pytest.mark.requirement("SEC75")
def test_a_credential_costs_the_same_among_2000_as_among_20() -> None:
    few, many = (cost_of(busy_cache(count), handle_new_credential) for count in (20, MANY))
    assert many == few < 20


@pytest.mark.requirement("SEC75")
def test_the_deletion_of_a_credential_costs_the_same_among_2000_as_among_20() -> None:
    def delete(snapshot: Snapshot) -> None:
        gone, secrets = with_key("c7")
        snapshot.index.remove(CREDENTIALS, gone)  # type: ignore[attr-defined]
        uid = gone.metadata.uid
        (read,) = orphans.reads(uid, snapshot)
        known_to_be_gone = replace(snapshot, live={(read.kind.plural, read.key): None})
        plan = orphans.plan(uid, known_to_be_gone, now=NOW, entropy=entropy())
        (kept,) = objects(plan.apply)
        assert kept.metadata.name == secrets[1].metadata.name
        assert kept_until(kept.metadata) == NOW + SETTINGS.deletion_retention

    few, many = (cost_of(busy_cache(count), delete) for count in (20, MANY))
    assert many == few < 20


def capped(count: int, maximum: int) -> Snapshot:
    """A snapshot with so many credentials that have keys, on a profile with this maximum."""
    resources: list[Any] = []
    for number in range(count):
        one, secrets = with_key(f"c{number}")
        resources += [one, *secrets]
    return snapshot_of(open_profile(maximum), SERVING, *resources)


@pytest.mark.requirement("SEC75")
def test_a_credential_beyond_the_maximum_of_the_profile_gets_no_key() -> None:
    plan = eab_credential.plan(credential("new", "busy"), capped(3, 3), now=NOW, entropy=entropy())
    assert objects(plan.apply) == ()
    condition = stated(plan)
    assert (condition.status, condition.reason) == ("False", "CredentialLimitReached")
    assert "CertificateProfile pki/web has 3 EABCredentials" in condition.message
    assert "spec.enrollment.acme.maximumCredentials" in condition.message
    assert plan.requeue_at is None, "a deletion wakes it up; a timer for each would cost more with each"
    assert list(eab_credential.reads(credential("new", "busy"), capped(3, 3))) == [], "no request either"
    below = eab_credential.plan(credential("new", "busy"), capped(3, 7), now=NOW, entropy=entropy())
    assert stated(below).reason == "Issued"


@pytest.mark.requirement("SEC75")
def test_a_namespace_with_many_credentials_leaves_places_on_the_profile_for_others() -> None:
    """Others get keys one after the other, and so does the namespace of the profile, where its issuers are."""
    refused = stated(eab_credential.plan(credential("new", "busy"), capped(5, 10), now=NOW, entropy=entropy()))
    assert refused.reason == "CredentialLimitReached"
    assert "namespace busy has its share of the places on CertificateProfile pki/web, 5 of 10" in refused.message
    assert "spec.enrollment.acme.maximumCredentials" in refused.message
    for namespace in ("quiet", "pki"):
        plan = eab_credential.plan(credential("new", namespace), capped(5, 10), now=NOW, entropy=entropy())
        assert stated(plan).reason == "Issued"
    home = [credential(f"h{number}", status={**ready_status(), "keyID": "k"}) for number in range(9)]
    snapshot = snapshot_of(open_profile(10), SERVING, *home)
    assert stated(eab_credential.plan(credential("tenth"), snapshot, now=NOW, entropy=entropy())).reason == "Issued"


def test_credentials_keep_their_keys_when_the_maximum_is_lowered() -> None:
    one, _ = with_key("c1")
    plan = eab_credential.plan(one, capped(3, 1), now=NOW, entropy=entropy())
    assert stated(plan).reason == "Issued"
    assert objects(plan.delete) == ()


def test_a_credential_that_moves_to_another_profile_needs_a_place_there() -> None:
    one, secrets = with_key("mover")
    moved = credential("mover", "busy", spec={"profileRef": {"name": "other", "namespace": "pki"}})
    moved = msgspec.structs.replace(moved, status=one.status)
    other = profile("other", acme={"allowedNamespaces": {"from": "All"}, "maximumCredentials": 1})
    holder = credential("holder", "busy", spec=msgspec.to_builtins(moved.spec), status=ready_status() | {"keyID": "k"})
    plan = eab_credential.plan(
        moved, snapshot_of(open_profile(), other, moved, holder, *secrets), now=NOW, entropy=entropy()
    )
    assert stated(plan).reason == "CredentialLimitReached"
    assert objects(plan.delete) == (secrets[1],), "and none of the old profile's"


@pytest.mark.requirement("SEC75")
@pytest.mark.parametrize(
    ("settings", "flag", "value"),
    [
        (
            replace(SETTINGS, maximum_secrets_per_namespace=2),
            "--maximum-secrets-per-namespace",
            "maximumSecretsPerNamespace",
        ),
        (replace(SETTINGS, maximum_secrets=2), "--maximum-secrets", "operator.maximumSecrets"),
    ],
)
def test_the_release_namespace_holds_no_more_secrets_than_its_bounds(
    settings: OperatorSettings, flag: str, value: str
) -> None:
    key = stored(
        internal_secret(
            RELEASE,
            signing_key_name("x"),
            component="signing-key",
            owner=authority("x", namespace="busy"),
            kind=AUTHORITIES,
            data={},
        )
    )
    one, secrets = with_key("c1")
    snapshot = snapshot_of(open_profile(), SERVING, one, *secrets, key, settings=settings)
    refused = [
        eab_credential.plan(credential("new", "busy"), snapshot, now=NOW, entropy=entropy()),
        certificate_authority.plan(authority("new", namespace="busy"), snapshot, now=NOW, entropy=entropy()),
    ]
    for plan in refused:
        assert objects(plan.apply) == ()
        assert (stated(plan).reason, plan.requeue_at) == ("SecretLimitReached", None)
        assert flag in stated(plan).message
        assert value in stated(plan).message
        assert "keys of deleted ones count for as long as they are kept" in stated(plan).message
    assert list(certificate_authority.reads(authority("new", namespace="busy"), snapshot)) == []
    elsewhere = eab_credential.plan(credential("new", "quiet"), snapshot, now=NOW, entropy=entropy())
    assert stated(elsewhere).reason == ("Issued" if "per" in flag else "SecretLimitReached")


@pytest.mark.requirement("SEC75")
def test_namespaces_at_their_share_leave_secrets_for_one_more() -> None:
    """Namespaces below `--maximum-secrets-per-namespace` must not take all of `--maximum-secrets`."""
    settings = replace(SETTINGS, maximum_secrets=20, maximum_secrets_per_namespace=4)
    random = entropy()
    held: list[Any] = [open_profile(), SERVING]
    for number in range(40):
        namespace = f"busy{number % 8}"
        one = credential(f"c{number}", namespace)
        plan = eab_credential.plan(one, snapshot_of(*held, settings=settings), now=NOW, entropy=random)
        held += [stored(each) for each in objects(plan.apply)]
    count = snapshot_of(*held, settings=settings).index.internal_secrets
    shares = [count(RELEASE, f"busy{number}") for number in range(8)]
    assert min(shares) >= 2
    assert max(shares) <= 4
    assert sum(shares) == count(RELEASE) < 20
    snapshot = snapshot_of(*held, settings=settings)
    quiet = eab_credential.plan(credential("new", "quiet"), snapshot, now=NOW, entropy=random)
    assert stated(quiet).reason == "Issued"
    refused = stated(eab_credential.plan(credential("more", "busy0"), snapshot, now=NOW, entropy=random))
    assert refused.reason == "SecretLimitReached"


def test_a_secret_that_a_tenant_labels_like_one_of_ours_uses_up_no_share() -> None:
    _, secrets = with_key("c1")
    forged = msgspec.structs.replace(
        secrets[1], metadata=msgspec.structs.replace(secrets[1].metadata, namespace="tenant")
    )
    index = snapshot_of(forged, secret("x", RELEASE)).index
    assert index.internal_secrets(RELEASE) == index.internal_secrets(RELEASE, "busy") == 0


@pytest.mark.parametrize("maximum", [5])
async def test_workers_that_run_at_once_do_not_exceed_the_maximum(maximum: int) -> None:
    async with world() as one:
        one.api.put(PROFILES, profile(acme={"maximumCredentials": maximum}))
        for number in range(3 * maximum):
            one.api.put(CREDENTIALS, credential(f"c{number}"))
        await one.reconcile_all()
        assert len(one.secrets("eab-")) == maximum
        holders = [each for each in credentials(one) if each.status.key_id is not None]
        assert len(holders) == maximum
        one.api.requests.clear()
        one.api.remove(CREDENTIALS, "pki", holders[0].metadata.name)
        one.controller.handle_delete(CREDENTIALS, holders[0])
        await one.settle()
        assert len([each for each in credentials(one) if each.status.key_id is not None]) == maximum
        assert len(one.secrets("eab-")) == maximum + 1, "and the key that is kept"


@pytest.mark.requirement("SEC75")
async def test_a_namespace_at_its_limit_leaves_others_their_turn_and_their_share() -> None:
    """Two tenants: one with many credentials, the other with a CA, a policy and a profile."""
    settings = replace(SETTINGS, maximum_secrets_per_namespace=10)
    async with world(settings) as one:
        one.api.put(PROFILES, open_profile())
        for number in range(60):
            one.api.put(CREDENTIALS, credential(f"c{number}", "busy"))
        await one.tell()
        one.api.put(AUTHORITIES, authority("issuing", namespace="quiet"))
        one.api.put(POLICIES, msgspec.structs.replace(policy(), metadata=authority(namespace="quiet").metadata))
        await one.tell()
        await one.settle()
        stated_in = [each.namespace for each in one.api.writes if each.subresource == "status"]
        before = stated_in[: stated_in.index("quiet")].count("busy")
        assert before <= 4, "credentials of the busy namespace that come before the first resource of the quiet one"
        assert len([each for each in one.secrets("eab-") if each.startswith(RELEASE)]) == 1 + 10
        found = one.api.read(AUTHORITIES, "quiet", "issuing")
        assert found is not None
        assert found.status.certificate is not None


@pytest.mark.requirement("SEC72")
async def test_policies_that_no_profile_uses_are_kept_by_their_identity() -> None:
    patterns = [f"{number:03}.{'x' * 240}.example" for number in range(500)]
    async with world() as one:
        for number in range(40):
            one.api.put(POLICIES, policy(f"unused-{number}", dnsNames={"allowed": patterns}))
        await one.reconcile_all()
        kept = sum(len(msgspec.json.encode(each)) for each in one.controller.cache.all(POLICIES).values())
        assert kept < 40 * 1_000, "bytes, of 40 * 125,000"
        found = one.api.read(POLICIES, "pki", "unused-7")
        assert found is not None
        assert found.spec.dns_names is not None, "only the cache is reduced"
        assert one.reason(POLICIES, "unused-7", "InUse") == "NotReferenced"


async def test_a_policy_comes_into_force_when_a_profile_uses_it(running: World) -> None:
    running.api.put(POLICIES, policy("later"))
    await running.reconcile()
    assert running.reason(POLICIES, "later", "InUse") == "NotReferenced"
    user = msgspec.to_builtins(profile("user").spec) | {"policyRef": {"name": "later"}}
    one = profile("user")
    running.api.put(PROFILES, msgspec.structs.replace(one, spec=msgspec.convert(user, type(one.spec))))
    await running.reconcile()
    assert running.reason(PROFILES, "user") == "Ready"
    assert running.reason(POLICIES, "later", "InUse") == "Referenced"
    running.api.remove(PROFILES, "pki", "user")
    await running.reconcile()
    assert running.reason(POLICIES, "later", "InUse") == "NotReferenced"


async def test_the_verdict_about_an_unused_policy_stays(running: World) -> None:
    running.api.put(POLICIES, policy("wrong", dnsNames={"allowed": ["a**b"]}))
    await running.reconcile()
    assert running.reason(POLICIES, "wrong") == "InvalidRules"
    await running.reconcile_all()
    assert running.reason(POLICIES, "wrong") == "InvalidRules"


@pytest.mark.requirement("SEC72", "SEC75")
async def test_a_namespace_has_only_so_many_profiles_that_work() -> None:
    async with world(replace(SETTINGS, maximum_profiles_per_namespace=2)) as one:
        await one.reconcile_all()
        one.api.put(PROFILES, profile("second"))
        await one.reconcile()
        one.api.put(PROFILES, profile("third"))
        one.api.put(PROFILES, profile("elsewhere", namespace="quiet"))
        await one.reconcile()
        assert [one.reason(PROFILES, each) for each in ("web", "second")] == ["Ready", "Ready"]
        assert one.reason(PROFILES, "third") == "ProfileLimitReached"
        third = one.api.read(PROFILES, "pki", "third")
        assert third is not None
        (condition,) = third.status.conditions
        assert "--maximum-profiles-per-namespace" in condition.message
        assert "operator.maximumProfilesPerNamespace" in condition.message
        assert "pki/third-acme" not in one.secrets()
        elsewhere = one.api.read(PROFILES, "quiet", "elsewhere")
        assert elsewhere is not None
        assert {each.reason for each in elsewhere.status.conditions} >= {"IssuerNotFound"}
        one.api.remove(PROFILES, "pki", "second")
        await one.reconcile()
        assert one.reason(PROFILES, "third") == "Ready"


def credentials(one: World) -> list[EABCredential]:
    keys = [each for each in one.api.store.by_key if each.plural == CREDENTIALS.plural]
    found = [one.api.read(CREDENTIALS, each.namespace, each.name) for each in keys]
    return [each for each in found if each is not None]
