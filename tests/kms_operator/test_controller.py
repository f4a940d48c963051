"""The loop against an API server: what is decided gets done, whoever else writes, whatever fails."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from kms.cluster.codec import Listing
from kms.resources.kept import KEPT_UNTIL
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, ISSUERS, POLICIES, PROFILES, SECRETS, Kind
from kms.resources.meta import Unreadable
from kms_operator.controller import Controller
from kms_operator.indexes import Unavailability
from kms_operator.metrics import Metrics
from kms_operator.objects import shared_secret
from kms_operator.settings import OperatorSettings
from kms_operator.triggers import INSTALLATION, ORPHANS, ReconcileRequest
from tests.support.apiobjects import ObjectKey
from tests.support.apiserver import spoil
from tests.support.eventually import in_background, until
from tests.support.operated import (
    NOW,
    RELEASE,
    SETTINGS,
    authority,
    credential,
    entropy,
    policy,
    profile,
    ready_status,
    secret,
)
from tests.support.world import World, world


async def another_controller(running: World) -> Controller:
    """A controller that knows nothing yet, as after a restart."""
    return Controller(
        SETTINGS,
        await running.api.cluster(),
        Metrics(),
        clock=lambda: NOW,
        entropy=entropy("another"),
        instance="test",
    )


async def test_four_manifests_become_ready(running: World) -> None:
    assert running.reason(AUTHORITIES, "issuing") == "Issued"
    assert running.reason(POLICIES) == "Accepted"
    assert running.reason(PROFILES) == "Ready"
    assert running.reason() == "Issued"
    assert running.secrets("web") == ["pki/web-acme", "pki/web-eab"]
    assert len(running.secrets("eab-")) == len(running.secrets("ca-")) == 1
    assert running.events().count("Issued") == 2
    chain = running.secret("web-acme").data["chain.crt"].decode()
    found = running.api.read(AUTHORITIES, "pki", "issuing")
    assert found is not None
    assert chain == found.status.chain
    assert "tls.crt" not in running.secret("web-acme").data


async def test_what_has_settled_writes_nothing_more(running: World) -> None:
    await running.reconcile_all()
    assert running.api.writes == []


async def test_a_restart_changes_nothing(running: World) -> None:
    before = dict(running.api.store.by_key)
    again = await another_controller(running)
    fresh = World(running.api, again, Metrics())
    await fresh.tell()
    again.enqueue_all()
    await fresh.settle()
    assert running.api.store.by_key == before


@pytest.mark.parametrize("plural", ["secrets", "eabcredentials", "certificateauthorities", "certificateprofiles"])
@pytest.mark.parametrize("done", [True, False])
async def test_a_write_that_fails_or_whose_answer_is_lost_is_made_good(plural: str, *, done: bool) -> None:
    async with world() as one:
        for verb in ("create", "patch"):
            one.api.fail_next(verb, plural, 0, times=2, done=done)
        await one.tell()
        one.controller.enqueue_all()
        async with in_background(one.controller.run()):
            await until(lambda: one.reason() == "Issued" and one.reason(PROFILES) == "Ready", seconds=20)
        assert one.reason() == "Issued"
        assert len(one.secrets("eab-")) == len(one.secrets("ca-")) == 1
        kid = one.secret("web-eab").data["kid"].decode()
        assert one.credential().status.key_id == kid


async def test_a_signing_key_that_somebody_else_made_meanwhile_is_kept(running: World) -> None:
    """Two operators at once: the key that was stored first is the CA's, however stale the cache of the second."""
    async with world() as late:
        await late.tell()
        late.api.store.by_key.update(running.api.store.by_key)
        late.api.store.version = running.api.store.version
        name = running.secrets("ca-")[0].removeprefix(f"{RELEASE}/")
        key = running.secret(name, RELEASE).data["tls.key"]
        late.controller.enqueue_all()
        await late.settle()
        assert late.secret(name, RELEASE).data["tls.key"] == key


async def test_deleting_the_users_secret_rotates_the_key(running: World) -> None:
    old, (copy,) = running.credential().status.key_id, running.secrets("eab-")
    gone = running.secret("web-eab")
    running.api.remove(SECRETS, "pki", "web-eab")
    running.controller.handle_delete(SECRETS, msgspec.structs.replace(gone))
    await running.settle()
    assert running.credential().status.key_id != old
    assert len(running.secrets("eab-")) == 1
    assert copy not in running.secrets("eab-")
    verbs = [(each.verb, each.plural) for each in running.api.writes]
    assert verbs[0] == ("delete", "secrets"), "the old key is void before there is a new one"
    assert "Rotated" in running.events()


@pytest.mark.requirement("SEC56")
async def test_a_deletion_that_is_only_believed_rotates_nothing(running: World) -> None:
    """SEC56: a watch may say so wrongly, the API server itself is asked."""
    old = running.credential().status.key_id
    running.controller.handle_delete(SECRETS, running.secret("web-eab"))
    await running.settle()
    assert running.credential().status.key_id == old
    assert running.api.writes == []


async def test_a_lost_signing_key_is_reported_and_its_return_noticed(running: World) -> None:
    (path,) = running.secrets("ca-")
    name = path.removeprefix(f"{RELEASE}/")
    key = running.secret(name, RELEASE)
    running.api.remove(SECRETS, RELEASE, name)
    running.controller.handle_delete(SECRETS, key)
    await running.settle()
    assert running.reason(AUTHORITIES, "issuing") == "KeyLost"
    assert running.reason(PROFILES) == "IssuerNotReady"
    assert running.secrets("ca-") == []
    restored = running.api.put(SECRETS, msgspec.structs.replace(key))
    running.controller.handle_upsert(SECRETS, restored)
    await running.settle()
    assert running.reason(AUTHORITIES, "issuing") == "Issued"
    assert running.reason(PROFILES) == "Ready"


async def test_stale_memory_loses_against_what_is_there_and_looks_again(running: World) -> None:
    found = running.credential()
    running.api.put(
        CREDENTIALS, msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, suspended=True))
    )
    shown = running.secret("web-eab")
    running.api.put(SECRETS, msgspec.structs.replace(shown, data={**shown.data, "kid": b"changed"}))
    running.controller.cache.all(SECRETS)["pki", "web-eab"].data["kid"] = b"believed"
    running.controller.queue.add(ReconcileRequest(CREDENTIALS.plural, "pki", "web"))
    await running.settle()
    await running.settle()
    async with in_background(running.controller.run()):
        await until(lambda: running.reason() == "Suspended")
    assert running.secret("web-eab").data["kid"].decode() == running.credential().status.key_id
    assert running.count("eabcredentials", "conflict") >= 1


async def test_a_foreign_secret_is_read_anew_each_time(running: World) -> None:
    running.api.put(CREDENTIALS, credential("own"))
    good = base64.urlsafe_b64encode(b"k" * 32).rstrip(b"=")
    running.api.put(SECRETS, secret("own-eab", data={"kid": b"mine", "secret": b"short"}))
    await running.reconcile()
    assert running.reason(name="own") == "InvalidSecret"
    running.api.put(SECRETS, secret("own-eab", data={"kid": b"mine", "secret": good}))
    running.controller.queue.add(ReconcileRequest(CREDENTIALS.plural, "pki", "own"))
    await running.settle()
    assert running.reason(name="own") == "Issued"
    assert ("patch", "secrets", "pki", "own-eab", "", 0) not in [tuple(each) for each in running.api.requests]


async def test_a_copy_without_its_label_is_found_and_labelled_again(running: World) -> None:
    (path,) = running.secrets("eab-")
    name = path.removeprefix(f"{RELEASE}/")
    copy = running.secret(name, RELEASE)
    bare = msgspec.structs.replace(copy, metadata=msgspec.structs.replace(copy.metadata, labels={}))
    running.controller.handle_delete(SECRETS, running.api.put(SECRETS, bare))
    running.controller.queue.add(ReconcileRequest(CREDENTIALS.plural, "pki", "web"))
    async with in_background(running.controller.run()):
        await until(lambda: running.secret(name, RELEASE).metadata.labels == copy.metadata.labels)


async def test_what_belongs_to_deleted_resources_is_swept(running: World) -> None:
    victims: tuple[tuple[Kind[Any], str], ...] = ((AUTHORITIES, "issuing"), (CREDENTIALS, "web"))
    for kind, name in victims:
        found = running.api.read(kind, "pki", name)
        running.api.remove(kind, "pki", name)
        assert found is not None
        running.controller.handle_delete(kind, found)
    await running.settle()
    running.now += timedelta(days=32)
    running.controller.queue.add(ORPHANS)
    await running.settle()
    assert running.secrets("ca-") == running.secrets("eab-") == []
    assert running.reason(PROFILES) == "IssuerNotFound"


async def test_nothing_is_swept_whose_owner_the_api_server_knows(running: World) -> None:
    found = running.api.read(AUTHORITIES, "pki", "issuing")
    assert found is not None
    running.controller.cache.remove(AUTHORITIES, found)
    running.controller.queue.add(ORPHANS)
    await running.settle()
    assert len(running.secrets("ca-")) == 1


async def test_an_owner_that_cannot_be_read_does_not_keep_other_orphans(running: World) -> None:
    owners: tuple[tuple[Kind[Any], str], ...] = ((AUTHORITIES, "issuing"), (CREDENTIALS, "web"))
    for kind, name in owners:
        owner = running.api.read(kind, "pki", name)
        assert owner is not None
        running.api.remove(kind, "pki", name)
        running.controller.cache.remove(kind, owner)
    running.api.fail_next("get", AUTHORITIES.plural, 500, times=1000)
    running.controller.queue.add(ORPHANS)
    async with in_background(running.controller.run()):
        await until(lambda: is_kept(running, "eab-"), seconds=10)
        assert not is_kept(running, "ca-")
        running.api.succeed()
        await until(lambda: is_kept(running, "ca-"), seconds=10)


def is_kept(running: World, prefix: str) -> bool:
    """Whether the operator has noticed that the owner of the Secret is gone."""
    (where,) = running.secrets(prefix)
    return KEPT_UNTIL in running.secret(where.rpartition("/")[2], RELEASE).metadata.annotations


async def test_a_resource_that_is_being_deleted_is_left_alone(running: World) -> None:
    found = running.credential()
    going = msgspec.structs.replace(
        found, metadata=msgspec.structs.replace(found.metadata, deletion_timestamp=NOW, resource_version="99999")
    )
    running.controller.handle_upsert(CREDENTIALS, going)
    await running.settle()
    assert running.api.requests == []


async def test_a_resource_that_vanishes_under_our_hands_is_no_failure(running: World) -> None:
    running.api.put(POLICIES, policy("new"))
    await running.tell()
    running.api.remove(POLICIES, "pki", "new")
    await running.settle()
    assert running.count("certificatepolicies", "failed") == 0
    assert running.controller.cache.get(POLICIES, ("pki", "new")) is None


async def test_an_api_server_that_refuses_is_asked_again_later(
    running: World, caplog: pytest.LogCaptureFixture
) -> None:
    running.api.fail_next("create", "secrets", 403, times=2)
    running.api.fail_next("get", "secrets", 500)
    running.api.put(CREDENTIALS, credential("new"))
    await running.tell()
    async with in_background(running.controller.run()):
        await until(lambda: running.reason(name="new") == "Issued", seconds=10)
    assert running.count("eabcredentials", "refused") == 2
    assert running.count("eabcredentials", "retried") == 1
    assert "writes refused" in caplog.text


async def test_a_bug_in_one_reconciler_stops_nothing_else(running: World, caplog: pytest.LogCaptureFixture) -> None:
    running.entropy = _broken
    running.api.put(CREDENTIALS, credential("new"))
    running.api.put(POLICIES, policy("new"))
    await running.reconcile()
    assert running.count("eabcredentials", "failed") >= 1
    assert running.reason(POLICIES, "new") == "Accepted"
    assert "Traceback" in caplog.text


def _broken(_count: int) -> bytes:
    raise ZeroDivisionError


async def test_events_that_are_refused_cost_nothing_but_a_line(
    running: World, caplog: pytest.LogCaptureFixture
) -> None:
    running.api.fail_next("create", "events", 403)
    running.api.put(POLICIES, policy("new"))
    await running.reconcile()
    assert running.reason(POLICIES, "new") == "Accepted"
    assert "Event cannot be posted" in caplog.text


@pytest.mark.requirement("SEC12b")
async def test_an_expiry_is_looked_at_when_it_comes() -> None:
    async with world() as one:
        soon = NOW + timedelta(seconds=1)
        one.api.put(CREDENTIALS, credential(spec={"expiresAt": soon.isoformat()}))
        await one.reconcile_all()
        assert one.reason() == "Issued"
        one.now = soon
        async with in_background(one.controller.run()):
            await until(lambda: one.reason() == "Expired", seconds=4)


async def test_the_installation_is_repaired(running: World) -> None:
    running.api.remove(SECRETS, RELEASE, "kms-acme-nonce")
    await running.reconcile()
    assert len(running.secret("kms-acme-nonce", RELEASE).data["key"]) == 32


async def test_the_installation_is_made_whole_when_another_was_first() -> None:
    async with world() as one:
        await one.tell()
        theirs = shared_secret(RELEASE, "kms-acme-nonce", component="nonce-key", data={"key": b"n" * 32})
        one.controller.queue.add(INSTALLATION)
        one.api.fail_next("create", "secrets", 409)
        one.api.put(SECRETS, theirs)
        async with in_background(one.controller.run()):
            await until(lambda: "kms-acme/kms-acme-serving" in one.secrets())
        assert one.secret("kms-acme-nonce", RELEASE).data["key"] == b"n" * 32


async def test_resources_of_other_namespaces_are_none_of_our_business() -> None:
    async with world(OperatorSettings("https://acme.example.com", RELEASE, watch_namespaces=("other",))) as one:
        await one.reconcile_all()
        assert one.reason() is None
        assert one.secrets("web") == []


@pytest.mark.requirement("SEC64")
async def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """SEC64."""
    caplog.set_level("DEBUG")
    async with world() as one:
        await one.reconcile_all()
        said = "".join(f"{each.getMessage()} {vars(each)}" for each in caplog.records)
        stored = str([each for key, each in one.api.store.by_key.items() if key.plural != "secrets"])
        secrets = (value for path in one.secrets() for value in one.secret(*reversed(path.split("/"))).data.items())
        for key, value in secrets:
            if key in {"tls.key", "secret", "key"}:
                for text in (value.decode("latin-1").splitlines()[len(value) > 100], base64.b64encode(value).decode()):
                    assert text not in said
                    assert text not in stored


# Issuers of cert-manager


def issuing(section: dict[str, Any] | None) -> Any:
    return profile(acme={"certManager": section} if section else {})


BESIDE = {"issuers": {"name": "web"}}


async def issue_beside(running: World) -> None:
    """Ask for an issuer beside the profile, and reconcile."""
    running.api.put(PROFILES, issuing(BESIDE))
    running.serve_optional_kinds()
    await running.reconcile()


async def test_an_issuer_is_made_with_its_credential_repaired_and_cleaned_up(running: World) -> None:
    await issue_beside(running)
    assert running.reason(PROFILES, type_="CertManagerIssuer") == "Issued"
    made = running.api.read(ISSUERS, "pki", "web")
    assert made is not None
    key_id = made.spec["acme"]["externalAccountBinding"]["keyID"]
    assert key_id == running.secret("web-issuer-pki-eab").text("kid")
    assert running.secret("web-kms-acme-eab").data["secret"] == running.secret("web-issuer-pki-eab").data["secret"]

    running.api.remove(ISSUERS, "pki", "web")
    running.controller.handle_list(ISSUERS, Listing((), str(running.api.store.version)))
    await running.settle()
    assert running.api.read(ISSUERS, "pki", "web") is not None

    running.api.put(PROFILES, issuing(None))
    await running.reconcile()
    assert running.api.read(ISSUERS, "pki", "web") is None
    assert running.api.read(CREDENTIALS, "pki", "web-issuer-pki") is None
    assert "pki/web-kms-acme-eab" not in running.secrets()


async def test_an_issuer_goes_after_its_profile(running: World) -> None:
    await issue_beside(running)
    running.api.remove(PROFILES, "pki", "web")
    await running.reconcile()
    assert running.api.read(ISSUERS, "pki", "web") is None
    assert "pki/web-kms-acme-eab" not in running.secrets()


async def test_a_profile_says_that_cert_manager_is_not_there_and_then_that_it_is(running: World) -> None:
    running.controller.handle_availability(ISSUERS, Unavailability("WaitingForCertManager", "install it"))
    running.api.put(PROFILES, issuing(BESIDE))
    await running.reconcile()
    assert running.reason(PROFILES, type_="CertManagerIssuer") == "WaitingForCertManager"
    running.controller.handle_availability(ISSUERS, None)
    await running.settle()
    assert running.reason(PROFILES, type_="CertManagerIssuer") == "Issued"


@pytest.mark.requirement("SEC77", "SEC82")
async def test_a_resource_that_cannot_be_read_says_so_and_is_used_by_nothing(running: World) -> None:
    spoil(running.api, POLICIES, "web", "spec.maximumNames", "hunter2")
    await running.reconcile_all()
    assert (running.reason(PROFILES), running.events().count("Unreadable")) == ("Unreadable", 2)
    body = running.api.store.get(ObjectKey("certificatepolicies", "pki", "web"))
    (ready,) = (each for each in body["status"]["conditions"] if each["type"] == "Ready")
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "Unreadable")
    assert "spec.maximumNames" in ready["message"]
    events = [each for key, each in running.api.store.by_key.items() if key.plural == "events"]
    assert "hunter2" not in f"{ready} {events}"
    running.api.requests.clear()
    for _ in range(2):
        await running.reconcile_all()
    assert running.api.writes == [], "it is said once"
    spoil(running.api, POLICIES, "web", "spec.maximumNames", 5)
    await running.reconcile_all()
    assert (running.reason(POLICIES), running.reason(PROFILES)) == ("Accepted", "Ready")


@pytest.mark.requirement("SEC77", "SEC82")
async def test_what_belongs_to_a_resource_that_cannot_be_read_outlives_a_restart_and_goes_with_it(
    running: World,
) -> None:
    spoil(running.api, AUTHORITIES, "issuing", "spec.renewIssuedBefore", "2027-01-01T00:00:00+99:99")
    spoil(running.api, CREDENTIALS, "web", "spec.expiresAt", "2027-01-01T00:00:00+99:99")
    kept = running.secrets("ca-"), running.secrets("eab-")
    for told in (True, False):
        again = World(running.api, await another_controller(running), Metrics())
        if told:
            await again.tell()
        again.controller.enqueue_all()  # without a list, the owners are read
        await again.settle()
        assert (running.secrets("ca-"), running.secrets("eab-")) == kept
    running.api.remove(AUTHORITIES, "pki", "issuing")
    running.api.remove(CREDENTIALS, "pki", "web")
    await running.reconcile_all()
    running.now += timedelta(days=32)
    await running.reconcile_all()
    assert running.secrets("ca-") == running.secrets("eab-") == []


@pytest.mark.requirement("SEC82")
async def test_the_sweep_goes_on_past_an_owner_that_cannot_be_read(running: World) -> None:
    running.api.put(AUTHORITIES, authority("other", uid="other"))
    await running.reconcile_all()
    assert len(running.secrets("ca-")) == 2
    spoil(running.api, AUTHORITIES, "issuing", "spec.renewIssuedBefore", "2027-01-01T00:00:00+99:99")
    running.api.remove(AUTHORITIES, "pki", "other")
    await running.reconcile_all()
    running.now += timedelta(days=8)
    await running.reconcile_all()
    assert len(running.secrets("ca-")) == 1


@pytest.mark.requirement("SEC82")
async def test_a_deletion_is_taken_by_identity(running: World) -> None:
    found = running.api.read(PROFILES, "pki", "web")
    assert found is not None
    metadata = msgspec.structs.replace(found.metadata, resource_version=str(running.api.store.version + 1))
    unreadable = Unreadable(metadata, "spec.description", "Expected `str`")
    running.controller.handle_delete(PROFILES, unreadable)
    assert running.controller.cache.get(PROFILES, ("pki", "web")) is None
    running.api.remove(PROFILES, "pki", "web")
    await running.settle()
    assert running.reason() == "ProfileNotFound"


async def test_the_leader_counts_the_cas_that_people_must_have_certified_again() -> None:
    async with world() as one:
        for name, status in (("due", "True"), ("renewed", "False")):
            condition = {**ready_status()["conditions"][0], "type": "RenewalDue", "status": status}
            one.api.put(AUTHORITIES, authority(name, status={"conditions": [condition]}))
        await one.tell()
        assert one.metrics.registry.get_sample_value("kms_operator_renewals_due") == 1
