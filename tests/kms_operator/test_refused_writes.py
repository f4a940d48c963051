"""What the API server refuses, changes or holds: the operator's own writes are not what makes it try again."""

from __future__ import annotations

import base64
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from kms.cluster.codec import Listing
from kms.resources.kinds import (
    AUTHORITIES,
    CREDENTIALS,
    ISSUERS,
    NAMESPACES,
    POLICIES,
    PROFILES,
    SECRETS,
)
from kms.resources.meta import LocalRef, condition
from kms_operator.queue import WorkQueue
from kms_operator.triggers import ReconcileRequest, namespace_of
from tests.support.apiserver import Seen
from tests.support.operated import NOW, authority, credential, namespace, pair, policy, profile, secret
from tests.support.pki import root
from tests.support.world import World, world

ATTEMPTS = 9
"""Of one request in the first minute: the delays double from 0.2 s."""
STEP = 0.8
"""Seconds by which the clock moves on once nothing is left to do."""
ISSUER = {"certManager": {"issuers": {"name": "web"}}}
TRUST = {"configMap": {"name": "example-ca"}}


class Clock:
    """The monotonic clock of a queue."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Patient(World):
    """A world whose queue has a clock of its own. `origin` has the time of day."""

    clock: Clock
    origin: World

    async def a_minute(self) -> list[Seen]:
        """Reconcile for a minute; returns the writes of that time, except Events."""
        return await self.seconds_pass(60)

    async def seconds_pass(self, seconds: float) -> list[Seen]:
        """Reconcile for so many seconds; returns the writes of that time, except Events."""
        self.api.requests.clear()
        for _ in range(int(seconds / STEP)):
            self.clock.seconds += STEP
            if len(self.controller.queue):
                await self.settle()
        return [each for each in self.api.writes if each.plural != "events"]


@pytest.fixture
async def patient() -> AsyncIterator[Patient]:
    """An operator that knows the resources and has reconciled none."""
    clock = Clock()
    queue = WorkQueue[ReconcileRequest](group=namespace_of, time=clock, random=lambda: 0.0)
    async with world(queue=queue) as made:
        one = Patient(made.api, made.controller, made.metrics)
        one.clock, one.origin = clock, made
        one.api.put(AUTHORITIES, authority(trust=TRUST))
        one.api.put(PROFILES, profile(acme=ISSUER))
        one.serve_optional_kinds()
        await one.tell()
        one.controller.enqueue_all()
        yield one


@pytest.mark.requirement("SEC86")
@pytest.mark.parametrize("status", [403, 500])
@pytest.mark.parametrize(
    ("verb", "plural"),
    [
        ("create", "secrets"),
        ("patch", "configmaps"),
        ("patch", "issuers"),
        ("patch", "eabcredentials"),
        ("patch", "certificateauthorities"),
        ("patch", "certificateprofiles"),
        ("patch", "certificatepolicies"),
    ],
)
async def test_a_refused_write_is_tried_again_ever_more_seldom(
    patient: Patient, verb: str, plural: str, status: int
) -> None:
    patient.api.fail_next(verb, plural, status, times=10**6)
    writes = await patient.a_minute()
    refused = [each for each in writes if (each.verb, each.plural) == (verb, plural)]
    # Two reconcilers write the status of a CA, and six resources ask for a Secret.
    assert ATTEMPTS // 2 < len(refused) <= 6 * (ATTEMPTS + 1)
    assert len(writes) - len(refused) <= 40 + len(refused), "a status for each message, of which no two are alike"


@pytest.mark.requirement("SEC86")
async def test_deletions_that_are_refused_are_tried_again_ever_more_seldom(patient: Patient) -> None:
    await patient.a_minute()
    assert patient.reason(PROFILES, type_="CertManagerIssuer") == "Issued"
    assert patient.reason(AUTHORITIES, "issuing", "TrustPublished") == "Published"
    patient.api.fail_next("delete", "*", 403, times=10**6)
    patient.api.put(AUTHORITIES, msgspec.structs.replace(authority(), status=_status(patient)))
    patient.api.put(PROFILES, profile())
    patient.api.put(CREDENTIALS, credential(spec={"secretName": "other"}, status=_credential_status(patient)))
    await patient.tell()
    writes = await patient.a_minute()
    deletions = [each for each in writes if each.verb == "delete"]
    assert {each.plural for each in deletions} == {"configmaps", "issuers", "secrets", "eabcredentials"}
    assert len(deletions) <= 5 * (ATTEMPTS + 1)
    assert len(writes) - len(deletions) <= 20 + len(deletions)


@pytest.mark.requirement("SEC86")
async def test_a_webhook_that_changes_what_is_written_is_not_fought_for_ever(patient: Patient) -> None:
    numbers = itertools.count()

    def mutate(seen: Seen, body: dict[str, Any]) -> None:
        if seen.plural == "secrets":
            body["data"] = {**body["data"], "directory-url": base64.b64encode(f"{next(numbers)}".encode()).decode()}
        elif seen.plural in {"issuers", "configmaps"}:
            body["metadata"]["annotations"] = {"pki.kms.hanzo.ai/spec-digest": f"{next(numbers)}"}

    patient.api.mutate = mutate
    writes = await patient.a_minute()
    assert 20 < len(writes) <= 150
    assert patient.reason() == "Issued"


@pytest.mark.requirement("SEC86")
async def test_an_undelivered_key_is_kept_and_delivered_once_the_quota_is_gone(patient: Patient) -> None:
    await patient.a_minute()
    patient.api.put(CREDENTIALS, credential("late"))
    await patient.tell()
    patient.api.fail_next("create", "secrets", 200)  # the copy for the server
    patient.api.fail_next("create", "secrets", 403, times=10**6)
    await patient.a_minute()
    first = _key_id(patient)
    assert (patient.reason(name="late"), first is None) == ("KeyNotDelivered", False)
    patient.api.succeed()
    await patient.a_minute()
    assert (patient.reason(name="late"), _key_id(patient)) == ("Issued", first)
    assert patient.secret("late-eab").text("kid") == first
    # Once users have seen it, its deletion is a rotation, also if the next key is not delivered for a time.
    gone = patient.secret("late-eab")
    patient.api.remove(SECRETS, "pki", "late-eab")
    patient.api.fail_next("create", "secrets", 200)
    patient.api.fail_next("create", "secrets", 403, times=3)
    patient.controller.handle_delete(SECRETS, gone)
    writes = await patient.a_minute()
    assert patient.reason(name="late") == "Issued"
    assert patient.secret("late-eab").text("kid") == _key_id(patient) != first
    assert sum(each.verb == "delete" for each in writes) == 1


TYPO = (
    "failed to create typed patch object (pki/web; cert-manager.io/v1, Kind=Issuer):"
    " .spec.acme.solvers[0].http01.ingres: field not declared in schema"
)


async def test_a_typo_in_the_solvers_is_told_with_its_field_and_the_rest_of_the_profile_goes_on(
    patient: Patient,
) -> None:
    await patient.a_minute()
    patient.api.fail_next("patch", "issuers", 500, times=10**6, message=TYPO)
    solvers: list[dict[str, Any]] = [{"http01": {"ingres": {}}}]
    changed = profile(acme={"certManager": {"issuers": {"name": "web"}, "solvers": solvers}})
    gone = msgspec.structs.replace(changed.spec, issuer_ref=LocalRef(name="gone"))
    patient.api.put(PROFILES, msgspec.structs.replace(changed, spec=gone, status=_profile(patient).status))
    patient.api.remove(SECRETS, "pki", "web-acme")
    await patient.tell()
    await patient.a_minute()
    assert patient.reason(PROFILES) == "IssuerNotFound"
    assert patient.reason(PROFILES, type_="Published") == "Published"
    found = condition(_profile(patient).status.conditions, "CertManagerIssuer")
    assert found is not None
    assert (found.status, found.reason) == ("False", "Refused")
    assert "spec.enrollment.acme.certManager.solvers[0].http01.ingres: field not declared" in found.message
    one = _profile(patient)
    assert found.observed_generation == one.metadata.generation > 1
    assert one.status.observed_generation == one.metadata.generation - 1
    assert "pki/web-acme" in patient.secrets()


async def test_a_part_that_cannot_be_read_keeps_no_other_part(patient: Patient) -> None:
    await patient.a_minute()
    patient.api.fail_next("get", "issuers", 403, times=10**6)
    patient.controller.handle_list(ISSUERS, Listing((), str(patient.api.store.version)))
    patient.api.put(POLICIES, policy(dnsNames={"allowed": ["not a name"]}))
    await patient.tell()
    await patient.a_minute()
    assert patient.reason(PROFILES, type_="CertManagerIssuer") == "Forbidden"
    assert patient.reason(PROFILES) == "PolicyInvalid"


async def test_a_ca_that_can_sign_goes_on_when_its_renewal_is_refused(patient: Patient) -> None:
    await patient.a_minute()
    before = _status(patient)
    patient.api.fail_next("patch", "secrets", 403, times=10**6)
    patient.origin.now = before.not_after - timedelta(days=1)
    patient.controller.enqueue_all()
    await patient.a_minute()
    assert patient.reason(AUTHORITIES, "issuing") == "Issued"
    assert patient.reason(AUTHORITIES, "issuing", "Reconciled") == "Forbidden"
    assert _status(patient).certificate == before.certificate
    patient.api.succeed()
    for _ in range(2):
        await patient.a_minute()
    assert patient.reason(AUTHORITIES, "issuing", "Reconciled") is None
    assert _status(patient).not_after > before.not_after


@pytest.mark.requirement("SEC86")
async def test_what_is_in_a_namespace_that_ends_is_left_alone(running: World) -> None:
    ending = namespace("pki")
    ended = msgspec.structs.replace(ending.metadata, deletion_timestamp=NOW)
    running.api.put(NAMESPACES, msgspec.structs.replace(ending, metadata=ended))
    for each in ("web-eab", "web-acme"):
        running.api.remove(SECRETS, "pki", each)
    running.api.put(POLICIES, policy(ip_addresses={"allowed": ["10.0.0.0/8"]}))
    running.now = NOW + timedelta(days=4000)
    await running.reconcile_all()
    assert [each for each in running.api.writes if each.namespace == "pki"] == []


@pytest.mark.requirement("SEC86")
async def test_an_object_that_waits_for_a_finalizer_is_not_deleted_again(running: World) -> None:
    running.api.put(PROFILES, profile(acme=ISSUER))
    running.serve_optional_kinds()
    await running.reconcile()
    for kind, name in ((ISSUERS, "web"), (CREDENTIALS, "web-issuer-pki"), (SECRETS, "web-kms-acme-eab")):
        held: Any = running.api.read(kind, "pki", name)
        meta = msgspec.structs.replace(held.metadata, deletion_timestamp=NOW)
        running.controller.handle_upsert(kind, running.api.put(kind, msgspec.structs.replace(held, metadata=meta)))
    running.api.put(PROFILES, profile())
    running.api.requests.clear()
    await running.reconcile()
    await running.reconcile_all()
    assert [each for each in running.api.writes if each.verb == "delete"] == []


async def test_what_users_change_in_secrets_that_resources_name_is_seen_within_ten_seconds(patient: Patient) -> None:
    good = base64.urlsafe_b64encode(b"k" * 32).rstrip(b"=")
    patient.api.put(SECRETS, secret("own-eab", data={"kid": b"mine", "secret": b"short"}))
    patient.api.put(CREDENTIALS, credential("own"))
    patient.api.put(AUTHORITIES, authority("imported", imported="corporate"))
    await patient.tell()
    await patient.a_minute()
    assert (patient.reason(name="own"), patient.reason(AUTHORITIES, "imported")) == ("InvalidSecret", "SecretNotFound")
    patient.api.put(SECRETS, secret("own-eab", data={"kid": b"mine", "secret": good}))
    patient.api.put(SECRETS, secret("corporate", data=pair(root(common_name="Old"))))
    await patient.seconds_pass(10)
    assert (patient.reason(name="own"), patient.reason(AUTHORITIES, "imported")) == ("Issued", "Imported")
    first = patient.api.read(AUTHORITIES, "pki", "imported")
    patient.api.put(SECRETS, secret("own-eab", data={"kid": b"another", "secret": good}))
    patient.api.put(SECRETS, secret("corporate", data=pair(root(common_name="New"))))
    await patient.seconds_pass(10)
    second = patient.api.read(AUTHORITIES, "pki", "imported")
    assert first is not None
    assert second is not None
    assert first.status.subject != second.status.subject
    own = patient.api.read(CREDENTIALS, "pki", "own")
    assert own is not None
    assert own.status.key_id == "another"


async def test_a_change_by_the_user_is_not_held(patient: Patient) -> None:
    await patient.a_minute()
    request = ReconcileRequest(CREDENTIALS.plural, "pki", "web")
    for _ in range(20):
        patient.controller.queue.retry(request)
    held = msgspec.structs.replace(patient.credential().metadata, resource_version=str(10**6))
    patient.controller.handle_upsert(CREDENTIALS, msgspec.structs.replace(patient.credential(), metadata=held))
    assert len(patient.controller.queue) == 0
    changed = msgspec.structs.replace(held, resource_version=str(10**6 + 1), generation=held.generation + 1)
    patient.controller.handle_upsert(CREDENTIALS, msgspec.structs.replace(patient.credential(), metadata=changed))
    assert len(patient.controller.queue) == 1


def _status(running: World) -> Any:
    found = running.api.read(AUTHORITIES, "pki", "issuing")
    assert found is not None
    return found.status


def _profile(running: World) -> Any:
    found = running.api.read(PROFILES, "pki", "web")
    assert found is not None
    return found


def _credential_status(running: World) -> Any:
    return msgspec.to_builtins(running.credential().status)


def _key_id(running: World) -> str | None:
    found = running.api.read(CREDENTIALS, "pki", "late")
    assert found is not None
    return found.status.key_id
