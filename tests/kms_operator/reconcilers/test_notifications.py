"""Receivers of notifications: keys of one type are copied, within bounds, and delivery is stated."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from kms.contract import NOTIFICATIONS
from kms.resources.core import Lease, Secret
from kms.resources.kinds import AUTHORITIES, LEASES, PROFILES
from kms.resources.meta import ObjectMeta
from kms.resources.notifications import KEY_TYPE, PROGRESS, Progress, progress_lease
from kms.resources.profiles import CertificateProfile
from kms.resources.secret_names import OWNER_UID, notification_key_name
from kms_operator.plan import Plan
from kms_operator.reconcilers import certificate_profile, notifications, orphans
from kms_operator.triggers import NOTIFICATIONS_OF, find_affected
from tests.support.operated import (
    NOW,
    RELEASE,
    SETTINGS,
    authority,
    entropy,
    objects,
    profile,
    snapshot_of,
    stated,
    stored,
)

ALLOWED = replace(SETTINGS, notifications_from=("pki",))
SECTION = {"url": "https://events.example.com/x", "secretRef": {"name": "key"}}
KEY = b"k" * 40


def receiving(one: Any, **changes: Any) -> Any:
    spec = msgspec.to_builtins(one.spec) | {"notifications": {**SECTION, **changes}}
    return msgspec.structs.replace(one, spec=msgspec.convert(spec, type(one.spec)))


def user_key(data: bytes = KEY, type_: str = KEY_TYPE) -> Secret:
    return Secret(metadata=ObjectMeta(namespace="pki", name="key", uid="key-uid"), type=type_, data={"secret": data})


def planned(one: Any, *others: Any, settings: Any = ALLOWED, lease: Lease | None = None) -> Plan:
    snapshot = snapshot_of(one, *others, settings=settings)
    key = RELEASE, progress_lease(settings.service_name, one.metadata.uid)
    snapshot = replace(snapshot, live={**snapshot.live, (LEASES.plural, key): lease})
    return notifications.plan(one, snapshot, now=NOW, entropy=entropy())


def lease(one: Any, **members: Any) -> Lease:
    progress = Progress(**{"version": 7, "time": NOW, "expiring": NOW, **members})
    annotations = {PROGRESS + one.metadata.uid: msgspec.json.encode(progress).decode()}
    return Lease(metadata=ObjectMeta(namespace=RELEASE, name="any", annotations=annotations))


@pytest.mark.requirement("P15")
@pytest.mark.parametrize("one", [profile(), authority()], ids=["profile", "authority"])
def test_the_key_is_copied_for_the_server_and_goes_with_its_owner(one: Any) -> None:
    owner = receiving(one)
    plan = planned(owner, user_key())
    (copy,) = objects(plan.apply)
    assert (copy.metadata.namespace, copy.metadata.name) == (RELEASE, notification_key_name(owner.metadata.uid))
    assert copy.data == {"secret": KEY}
    assert copy.metadata.labels[OWNER_UID] == owner.metadata.uid
    assert stated(plan, NOTIFICATIONS).reason == "Pending"
    assert planned(owner, user_key(), stored(copy)).apply == ()
    without = planned(one, stored(copy))
    assert objects(without.delete) == (stored(copy),)
    kind = PROFILES if isinstance(one, CertificateProfile) else AUTHORITIES
    snapshot = snapshot_of(stored(copy), absent=[(kind.plural, ("pki", one.metadata.name))])
    left = orphans.plan(one.metadata.uid, snapshot, now=NOW, entropy=entropy())
    assert objects(left.delete) == (stored(copy),)


@pytest.mark.requirement("P15")
@pytest.mark.parametrize(
    ("changes", "secret", "settings", "reason", "text"),
    [
        ({}, user_key(), SETTINGS, "NamespaceNotAllowed", "--notifications-from pki (in the chart operator.notificat"),
        ({}, None, ALLOWED, "SecretNotFound", "Secret key does not exist"),
        ({}, user_key(type_="Opaque"), ALLOWED, "InvalidSecret", KEY_TYPE),
        ({}, user_key(b"short"), ALLOWED, "InvalidSecret", "32 to 1024 octets"),
        ({}, user_key(), replace(ALLOWED, maximum_secrets=0), "SecretLimitReached", "--maximum-secrets"),
        ({"url": "https://bad_host/"}, user_key(), ALLOWED, "InvalidNotifications", "spec.notifications"),
        ({"url": "https://a:99999999/"}, user_key(), ALLOWED, "InvalidNotifications", "spec.notifications"),
        ({"expiring": ["1s"]}, user_key(), ALLOWED, "InvalidNotifications", "1m or more"),
    ],
)
def test_what_is_not_allowed_or_unfit_is_not_copied_and_an_earlier_copy_deleted(
    changes: dict[str, Any], secret: Secret | None, settings: Any, reason: str, text: str
) -> None:
    owner = receiving(profile(), **changes)
    others = (secret,) if secret is not None else ()
    plan = planned(owner, *others, settings=settings)
    assert plan.apply == ()
    found = stated(plan, NOTIFICATIONS)
    assert (found.status, found.reason) == ("False", reason)
    assert text in found.message
    assert KEY.decode() not in found.message
    if reason != "SecretLimitReached":
        (copy,) = objects(planned(receiving(profile()), user_key()).apply)
        assert objects(planned(owner, *others, stored(copy), settings=settings).delete) == (stored(copy),)


@pytest.mark.requirement("P15")
def test_nothing_is_read_where_it_is_not_allowed() -> None:
    owner = receiving(profile())
    assert list(notifications.reads(owner, snapshot_of(owner))) == []
    assert len(list(notifications.reads(owner, snapshot_of(owner, settings=ALLOWED)))) == 2


@pytest.mark.requirement("P15")
def test_the_condition_says_how_delivery_goes() -> None:
    owner = receiving(profile())
    delivered = stated(planned(owner, user_key(), lease=lease(owner, delivered=NOW)), NOTIFICATIONS)
    assert (delivered.status, delivered.reason) == ("True", "Delivered")
    known = stated(planned(owner, user_key(), lease=lease(owner)), NOTIFICATIONS)
    assert (known.status, known.reason) == ("Unknown", "NothingSent")
    (event,) = planned(owner, user_key(), lease=lease(owner)).events
    assert (event.reason, event.type) == ("NothingSent", "Normal")
    refusing = stated(planned(owner, user_key(), lease=lease(owner, dropped=3, error="status 400")), NOTIFICATIONS)
    assert (refusing.status, refusing.reason) == ("False", "Refused")
    assert refusing.message.endswith("status 400; 3 events were given up")
    partly = stated(planned(owner, user_key(), lease=lease(owner, delivered=NOW, dropped=1)), NOTIFICATIONS)
    assert "all events but those that were given up" in partly.message
    failing = {"failing_since": NOW - timedelta(hours=1), "error": "it answered with status 503", "dropped": 2}
    found = stated(planned(owner, user_key(), lease=lease(owner, reason="Failing", **failing)), NOTIFICATIONS)
    assert (found.status, found.reason) == ("False", "Failing")
    assert "status 503" in found.message
    assert "2 events were given up" in found.message
    denied = lease(owner, reason="ReceiverNotAllowed", failing_since=NOW)
    assert stated(planned(owner, user_key(), lease=denied), NOTIFICATIONS).reason == "ReceiverNotAllowed"


@pytest.mark.requirement("P15")
def test_the_other_reconciler_keeps_the_condition_and_a_change_is_looked_at() -> None:
    owner = receiving(profile())
    told = msgspec.structs.replace(owner, status=planned(owner, user_key()).status)
    plan = certificate_profile.plan(told, snapshot_of(told), now=NOW, entropy=entropy())
    assert stated(plan, NOTIFICATIONS).reason == "Pending"
    requests = {each.reconciler for each, _ in find_affected(PROFILES, told, snapshot_of(told).index, release=RELEASE)}
    assert NOTIFICATIONS_OF[PROFILES.plural] in requests
