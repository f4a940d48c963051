"""What is missing, in the way, or left by an object of the same name, and is not watched: seen within ten seconds."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from kms.resources.certmanager import Issuer
from kms.resources.core import ConfigMap
from kms.resources.kinds import AUTHORITIES, CONFIG_MAPS, CREDENTIALS, ISSUERS, PROFILES, SECRETS, Kind
from kms.resources.meta import Condition, ObjectMeta, condition
from kms.resources.notifications import KEY_TYPE
from kms.resources.secret_names import EAB_SECRET
from kms_operator.queue import WorkQueue
from kms_operator.triggers import ReconcileRequest, namespace_of
from tests.support.operated import SETTINGS, authority, credential, profile, secret
from tests.support.world import World, world

STEP = 0.8
"""Seconds by which the clock moves on once nothing is left to do."""
WITHIN = 10
"""Seconds in which a change is seen."""
DONE = {"Published", "Issued"}
ISSUER = {"certManager": {"issuers": {"name": "web"}}}
TRUST = {"configMap": {"name": "example-ca"}}
RECEIVER = {"url": "https://hooks.example.com/", "secretRef": {"name": "hook"}}


class Patient(World):
    """A world whose queue has a clock of its own."""

    seconds = 0.0

    async def seconds_pass(self, seconds: float) -> None:
        """Reconcile for so many seconds."""
        for _ in range(int(seconds / STEP)):
            self.seconds += STEP
            if len(self.controller.queue):
                await self.settle()

    async def begin(self) -> None:
        """Reconcile everything, and let a time pass after which a minute ends in the middle of nothing."""
        await self.tell()
        self.controller.enqueue_all()
        await self.seconds_pass(25)


@pytest.fixture
async def patient() -> AsyncIterator[Patient]:
    """An operator with a CA and a profile that want objects beside them; nothing is reconciled yet."""
    queue = WorkQueue[ReconcileRequest](group=namespace_of, time=lambda: one.seconds, random=lambda: 0.0)
    one: Patient
    async with world(dataclasses.replace(SETTINGS, notifications_from=("pki",)), queue=queue) as made:
        one = Patient(made.api, made.controller, made.metrics)
        one.api.put(AUTHORITIES, authority(trust=TRUST))
        one.api.put(PROFILES, profile(acme=ISSUER))
        one.serve_optional_kinds()
        yield one


def foreign(kind: Kind[Any], name: str) -> Any:
    """An object that a user has made."""
    metadata = ObjectMeta(namespace="pki", name=name)
    if kind is SECRETS:
        return secret(name, data={"a": b"b"})
    return ConfigMap(metadata=metadata) if kind is CONFIG_MAPS else Issuer(metadata=metadata, spec={})


@pytest.mark.parametrize(
    ("kind", "name", "owner", "type_"),
    [
        pytest.param(SECRETS, "web-acme", (PROFILES, "web"), "Published", id="directory Secret"),
        pytest.param(CONFIG_MAPS, "example-ca", (AUTHORITIES, "issuing"), "TrustPublished", id="root"),
        pytest.param(ISSUERS, "web", (PROFILES, "web"), "CertManagerIssuer", id="Issuer"),
        pytest.param(SECRETS, "web-kms-acme-eab", (PROFILES, "web"), "CertManagerIssuer", id="key of an Issuer"),
    ],
)
async def test_the_deletion_of_what_is_in_the_way(
    patient: Patient, kind: Kind[Any], name: str, owner: tuple[Kind[Any], str], type_: str
) -> None:
    patient.api.put(kind, foreign(kind, name))
    await patient.begin()
    assert patient.reason(*owner, type_) in {"NotOurs", "SecretExists"}
    patient.api.remove(kind, "pki", name)
    await patient.seconds_pass(WITHIN)
    assert patient.reason(*owner, type_) in DONE


def again(patient: Patient, kind: Kind[Any], name: str) -> tuple[Any, Any]:
    """Delete a resource and make it again; returns both."""
    old: Any = patient.api.read(kind, "pki", name)
    patient.api.remove(kind, "pki", name)
    plain = msgspec.to_builtins(old)
    plain |= {"metadata": {"namespace": "pki", "name": name, "uid": "another"}, "status": {}}
    return old, patient.api.put(kind, msgspec.convert(plain, kind.model))


@pytest.mark.parametrize("seen", ["list", "creation first"])
async def test_a_ca_that_is_made_again_publishes_its_root(patient: Patient, seen: str) -> None:
    await patient.begin()
    assert patient.reason(AUTHORITIES, "issuing", "TrustPublished") in DONE
    old, new = again(patient, AUTHORITIES, "issuing")
    if seen == "list":
        await patient.tell()
    else:  # kopf delivers events of two UIDs in any order
        patient.controller.handle_upsert(AUTHORITIES, new)
        patient.controller.handle_delete(AUTHORITIES, old)
    await patient.seconds_pass(WITHIN)
    assert patient.reason(AUTHORITIES, "issuing", "TrustPublished") in DONE


async def test_a_profile_that_is_made_again_has_its_issuer(patient: Patient) -> None:
    await patient.begin()
    assert patient.reason(PROFILES, "web", "CertManagerIssuer") in DONE
    again(patient, PROFILES, "web")
    await patient.tell()
    kinds: tuple[tuple[Kind[Any], str], ...] = (
        (SECRETS, "web-acme"),
        (CREDENTIALS, "web-issuer-pki"),
        (SECRETS, "web-issuer-pki-eab"),
    )
    for kind, name in kinds:
        owned = patient.api.read(kind, "pki", name)
        assert owned is not None
        patient.api.remove(kind, "pki", name)  # as the garbage collector does
        patient.controller.handle_delete(kind, owned)
    await patient.seconds_pass(WITHIN)
    assert patient.reason(PROFILES, "web", "CertManagerIssuer") in DONE


@pytest.mark.parametrize(("kind", "name"), [(PROFILES, "web"), (AUTHORITIES, "issuing")], ids=["profile", "CA"])
async def test_the_key_of_a_receiver(patient: Patient, kind: Kind[Any], name: str) -> None:
    plain = msgspec.to_builtins(patient.api.read(kind, "pki", name))
    plain["spec"]["notifications"] = RECEIVER
    patient.api.put(kind, msgspec.convert(plain, kind.model))
    await patient.begin()
    assert patient.reason(kind, name, "Notifications") == "SecretNotFound"
    for key in (b"k" * 32, b"l" * 32):
        patient.api.put(SECRETS, secret("hook", data={EAB_SECRET: key}, type_=KEY_TYPE))
        await patient.seconds_pass(WITHIN)
        copy = patient.secrets("notify-")[0].partition("/")[2]
        assert patient.secret(copy, "kms-acme").data[EAB_SECRET] == key


def ready_of(patient: Patient, kind: Kind[Any], name: str, type_: str) -> Condition:
    found = condition(patient.api.read(kind, "pki", name).status.conditions, type_)  # type: ignore[union-attr]
    assert found is not None
    return found


@pytest.mark.requirement("SEC86")
async def test_a_key_that_cannot_be_withdrawn_is_told_and_withdrawn_later(patient: Patient) -> None:
    own = {"kid": b"mine", "secret": base64.urlsafe_b64encode(b"k" * 32).rstrip(b"=")}
    patient.api.put(SECRETS, secret("own-eab", data=own))
    patient.api.put(CREDENTIALS, credential("own"))
    told = msgspec.to_builtins(profile(acme=ISSUER))
    told["spec"]["notifications"] = RECEIVER
    patient.api.put(PROFILES, msgspec.convert(told, PROFILES.model))
    patient.api.put(SECRETS, secret("hook", data={EAB_SECRET: b"k" * 32}, type_=KEY_TYPE))
    await patient.begin()
    assert (patient.reason(name="own"), patient.reason(type_="Notifications", kind=PROFILES)) == ("Issued", "Pending")
    patient.api.fail_next("delete", "secrets", 403, times=10**6)
    patient.api.put(SECRETS, secret("own-eab", data={**own, "secret": b"short"}))
    patient.api.remove(SECRETS, "pki", "hook")
    await patient.seconds_pass(WITHIN)
    for kind, name, type_, reason in (
        (CREDENTIALS, "own", "Ready", "InvalidSecret"),
        (PROFILES, "web", "Notifications", "SecretNotFound"),
    ):
        stated = ready_of(patient, kind, name, type_)
        assert (stated.status, stated.reason) == ("False", reason)
        assert "; Secret kms-acme/" in stated.message
    assert patient.credential().status.key_id is not None, "the server has the key"
    patient.api.succeed()
    await patient.seconds_pass(90)
    assert patient.secrets("notify-") == []
    assert "kms-acme/" not in ready_of(patient, CREDENTIALS, "own", "Ready").message
