"""Deleting a CertificateAuthority or EABCredential by mistake loses nothing for the deletion retention (SEC80)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.kept import KEPT_UNTIL, deleted_at, kept_until
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, PROFILES, SECRETS, Kind
from kms.resources.meta import ObjectMeta, condition
from kms.resources.secret_names import OWNER_UID, signing_key_name
from tests.support.operated import NOW, RELEASE, SETTINGS, authority, credential, secret
from tests.support.world import World, world

pytestmark = pytest.mark.requirement("SEC80")
DAY = timedelta(days=1)


def found(running: World) -> CertificateAuthority:
    one = running.api.read(AUTHORITIES, "pki", "issuing")
    assert one is not None
    return one


def keys(running: World) -> list[Secret]:
    return [running.secret(each.rpartition("/")[2], RELEASE) for each in running.secrets("ca-")]


def message(running: World, kind: Kind[Any], name: str) -> str:
    one = running.api.read(kind, "pki", name)
    assert one is not None
    ready = condition(one.status.conditions, "Ready")
    assert ready is not None
    return ready.message


async def delete(running: World, kind: Kind[Any], name: str) -> None:
    one = running.api.read(kind, "pki", name)
    assert one is not None
    running.api.remove(kind, "pki", name)
    running.controller.handle_delete(kind, one)
    await running.settle()


async def test_a_deleted_ca_that_is_created_again_has_its_key_and_certificate(running: World) -> None:
    before, (key,) = found(running), keys(running)
    await delete(running, AUTHORITIES, "issuing")
    (kept,) = keys(running)
    assert kept.data == key.data
    # The profile's certificates last for thirty days, and a day longer on the list.
    assert kept_until(kept.metadata) == NOW + 31 * DAY
    running.now += 20 * DAY
    running.api.put(AUTHORITIES, authority(uid="another"))
    await running.reconcile_all()
    after, (restored,) = found(running), keys(running)
    assert restored.metadata.name == signing_key_name("another")
    assert restored.data["tls.key"] == key.data["tls.key"]
    assert after.status.certificate == before.status.certificate
    assert not restored.metadata.annotations.get(KEPT_UNTIL)
    assert running.reason(AUTHORITIES, "issuing") == "Issued"
    assert running.reason(PROFILES) == "Ready"
    assert "Restored" in running.events()
    writes = len(running.api.writes)
    await running.reconcile_all()
    assert len(running.api.writes) == writes


@pytest.mark.parametrize(("kind", "name", "prefix"), [(AUTHORITIES, "issuing", "ca-"), (CREDENTIALS, "web", "eab-")])
async def test_a_key_whose_owner_comes_and_goes_unnoticed_is_kept_from_the_last_deletion(
    running: World, kind: Kind[Any], name: str, prefix: str
) -> None:
    await delete(running, kind, name)
    (kept,) = (running.secret(each.rpartition("/")[2], RELEASE) for each in running.secrets(prefix))
    first = kept_until(kept.metadata)
    assert first is not None
    running.now = first - timedelta(minutes=1)
    again = authority(uid="another") if kind is AUTHORITIES else credential(uid="another")
    stored = running.api.put(kind, again)
    running.controller.handle_upsert(kind, stored)
    running.api.remove(kind, "pki", name)
    running.controller.handle_delete(kind, stored)
    running.now = first + timedelta(minutes=1)
    await running.reconcile_all()
    (kept,) = (running.secret(each.rpartition("/")[2], RELEASE) for each in running.secrets(prefix))
    assert deleted_at(kept.metadata) == first - timedelta(minutes=1)
    running.now = first + 40 * DAY
    await running.reconcile_all()
    assert running.secrets(prefix) == []


async def test_the_profiles_of_a_deleted_ca_say_until_when_it_can_be_brought_back(running: World) -> None:
    await delete(running, AUTHORITIES, "issuing")
    assert running.reason(PROFILES) == "CertificateAuthorityDeleted"
    (kept,) = keys(running)
    for part in (
        "CertificateAuthority pki/issuing",
        "2026-11-23T12:00:00Z",
        "2026-12-24T12:00:00Z",
        kept.metadata.name,
    ):
        assert part in message(running, PROFILES, "web")
    assert "CertificateAuthorityDeleted" in running.events()


@pytest.mark.parametrize(
    "internal",
    [
        {"subject": {"commonName": "Another"}},
        {"privateKey": {"algorithm": "ECDSA", "size": 384}},
        {"privateKey": {"algorithm": "RSA", "size": 2048}},
    ],
)
async def test_a_ca_with_another_subject_or_algorithm_is_another_one_and_says_so(
    running: World, internal: dict[str, Any]
) -> None:
    (key,) = keys(running)
    await delete(running, AUTHORITIES, "issuing")
    running.api.put(AUTHORITIES, authority(uid="another", internal=internal))
    await running.reconcile_all()
    other = [each for each in keys(running) if each.metadata.name == signing_key_name("another")]
    assert other[0].data["tls.key"] != key.data["tls.key"]
    assert len(keys(running)) == 2, "the former key stays until its time"
    assert "this is another CA than the deleted one of the same name" in message(running, AUTHORITIES, "issuing")
    assert key.metadata.name in message(running, AUTHORITIES, "issuing")
    assert "AnotherCertificateAuthority" in running.events()


async def test_an_intermediate_is_the_same_ca_only_under_the_same_issuer(running: World) -> None:
    for name in ("first", "second"):
        running.api.put(AUTHORITIES, authority(name))
    running.api.put(AUTHORITIES, authority("below", internal={"issuerRef": {"name": "first"}}))
    await running.reconcile_all()
    key = running.secret(signing_key_name("uid-pki-below"), RELEASE)
    await delete(running, AUTHORITIES, "below")
    running.api.put(AUTHORITIES, authority("below", uid="2", internal={"issuerRef": {"name": "second"}}))
    await running.reconcile_all()
    assert running.secret(signing_key_name("2"), RELEASE).data["tls.key"] != key.data["tls.key"]
    await delete(running, AUTHORITIES, "below")
    running.api.put(AUTHORITIES, authority("below", uid="3", internal={"issuerRef": {"name": "first"}}))
    await running.reconcile_all()
    assert running.secret(signing_key_name("3"), RELEASE).data == key.data


async def test_a_key_that_was_restored_under_an_earlier_uid_is_found_by_the_name_of_its_ca(running: World) -> None:
    """As `kubectl apply` restores it into another cluster, where every object has another UID."""
    (key,) = keys(running)
    data, meta = key.data, key.metadata
    running.api.remove(SECRETS, RELEASE, meta.name)
    await delete(running, AUTHORITIES, "issuing")
    backup = ObjectMeta(namespace=RELEASE, name=meta.name, labels=meta.labels, annotations=meta.annotations)
    running.api.put(SECRETS, Secret(metadata=backup, data=data))
    running.api.put(AUTHORITIES, authority(uid="restored"))
    await running.reconcile_all()
    (restored,) = keys(running)
    assert (restored.metadata.name, restored.data["tls.key"]) == (signing_key_name("restored"), data["tls.key"])


async def test_a_deleted_credential_that_is_created_again_has_its_key(running: World) -> None:
    before = running.secret("web-eab").data
    await delete(running, CREDENTIALS, "web")
    running.api.remove(SECRETS, "pki", "web-eab")  # the API server's garbage collector deletes it
    (where,) = running.secrets("eab-")
    copy = running.secret(where.rpartition("/")[2], RELEASE)
    assert kept_until(copy.metadata) == NOW + 7 * DAY
    running.api.put(CREDENTIALS, credential(uid="another"))
    await running.reconcile_all()
    assert running.secret("web-eab").data == before
    assert running.secrets("eab-") == [where]
    copy = running.secret(where.rpartition("/")[2], RELEASE)
    assert copy.metadata.labels[OWNER_UID] == "another"
    assert not copy.metadata.annotations.get(KEPT_UNTIL)
    assert running.reason() == "Issued"
    writes = len(running.api.writes)
    await running.reconcile_all()
    assert len(running.api.writes) == writes


async def test_a_kept_key_identifier_is_not_taken_by_another_credential(running: World) -> None:
    data = running.secret("web-eab").data
    await delete(running, CREDENTIALS, "web")
    running.api.remove(SECRETS, "pki", "web-eab")
    running.api.put(SECRETS, secret("mine-eab", data={"kid": data["kid"], "secret": b"A" * 43}))
    running.api.put(CREDENTIALS, credential("mine", uid="mine"))
    await running.reconcile_all()
    assert running.reason(name="mine") == "KeyIDInUse"
    running.now += 8 * DAY
    await running.reconcile_all()
    await running.reconcile_all()
    assert running.reason(name="mine") == "Issued"


async def test_a_deleted_secret_still_rotates_the_key(running: World) -> None:
    before = running.secret("web-eab").data["kid"]
    running.api.remove(SECRETS, "pki", "web-eab")
    await running.reconcile_all()
    assert running.secret("web-eab").data["kid"] != before
    assert len(running.secrets("eab-")) == 1


async def test_a_key_that_was_purged_does_not_come_back(running: World) -> None:
    (key,) = keys(running)
    await delete(running, AUTHORITIES, "issuing")
    running.api.remove(SECRETS, RELEASE, key.metadata.name)
    running.api.put(AUTHORITIES, authority(uid="another"))
    await running.reconcile_all()
    (made,) = keys(running)
    assert made.data["tls.key"] != key.data["tls.key"]
    assert "another CA" not in message(running, AUTHORITIES, "issuing")


async def test_a_credential_that_waits_for_a_key_identifier_does_not_get_the_key_of_a_deleted_one(
    running: World,
) -> None:
    """The deletion wakes whoever waits, before the operator has written that the key is kept."""
    data = running.secret("web-eab").data
    running.api.put(SECRETS, secret("mine-eab", data={"kid": data["kid"], "secret": b"A" * 43}))
    running.api.put(CREDENTIALS, credential("mine", uid="mine"))
    await running.reconcile_all()
    assert running.reason(name="mine") == "KeyIDInUse"
    await delete(running, CREDENTIALS, "web")
    assert running.reason(name="mine") == "KeyIDInUse"
    (where,) = running.secrets("eab-")
    assert running.secret(where.rpartition("/")[2], RELEASE).data["secret"] == data["secret"]


@pytest.mark.requirement("SEC75")
async def test_a_key_that_was_kept_needs_no_further_place() -> None:
    async with world(replace(SETTINGS, maximum_secrets_per_namespace=2)) as one:
        await one.reconcile_all()
        before = one.secret("web-eab").data
        (key,) = keys(one)
        await delete(one, CREDENTIALS, "web")
        await delete(one, AUTHORITIES, "issuing")
        one.api.remove(SECRETS, "pki", "web-eab")
        one.api.put(AUTHORITIES, authority(uid="another"))
        one.api.put(CREDENTIALS, credential(uid="another"))
        await one.reconcile_all()
        assert (one.reason(AUTHORITIES, "issuing"), one.reason()) == ("Issued", "Issued")
        assert one.secret("web-eab").data == before
        (restored,) = keys(one)
        assert restored.data["tls.key"] == key.data["tls.key"]
        one.api.put(AUTHORITIES, authority("further"))
        await one.reconcile_all()
        assert one.reason(AUTHORITIES, "further") == "SecretLimitReached"


@pytest.mark.requirement("SEC75")
async def test_another_ca_in_the_place_of_a_deleted_one_needs_a_place_of_its_own() -> None:
    async with world(replace(SETTINGS, maximum_secrets_per_namespace=2)) as one:
        await one.reconcile_all()
        await delete(one, AUTHORITIES, "issuing")
        one.api.put(AUTHORITIES, authority(uid="another", internal={"subject": {"commonName": "Another"}}))
        await one.reconcile_all()
        assert one.reason(AUTHORITIES, "issuing") == "SecretLimitReached"
