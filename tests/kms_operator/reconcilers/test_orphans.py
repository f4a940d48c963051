"""Orphaned objects: what outlived its owner, and what only looks so."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
import pytest

from kms.resources.core import Secret
from kms.resources.kept import KEPT_UNTIL, LONGEST_CERTIFICATE, deleted_at, kept_until
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, Kind
from kms.resources.meta import Unreadable
from kms.resources.secret_names import COMPONENT, MANAGED_BY, OWNER, OWNER_UID, SIGNING_KEY, VERIFICATION_KEY
from kms_operator.objects import internal_secret
from kms_operator.plan import Plan
from kms_operator.reconcilers import orphans
from kms_operator.settings import OperatorSettings
from kms_operator.snapshot import Read
from tests.support import pki
from tests.support.operated import (
    DAY,
    NOW,
    RELEASE,
    SETTINGS,
    authority,
    credential,
    entropy,
    objects,
    pair,
    snapshot_of,
    stored,
    unread,
)

OWNERS = (("certificateauthorities", ("pki", "issuing")), ("eabcredentials", ("pki", "web")))


def key_of_authority() -> Secret:
    return stored(internal_secret(RELEASE, "ca-1", component=SIGNING_KEY, owner=authority(), kind=AUTHORITIES, data={}))


def copy_of_credential() -> Secret:
    return stored(
        internal_secret(RELEASE, "eab-1", component=VERIFICATION_KEY, owner=credential(), kind=CREDENTIALS, data={})
    )


def changed(one: Secret, **metadata: Any) -> Secret:
    return msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, **metadata))


def reads(*resources: Any, settings: OperatorSettings = SETTINGS) -> list[Read]:
    return list(orphans.reads(None, snapshot_of(*resources, settings=settings)))


Unread = Iterable[tuple[Kind[Any], Unreadable]]


def plan(*resources: Any, absent: Any = OWNERS, unreadable: Unread = (), now: datetime = NOW) -> Plan:
    """The plan once the API server has said that the owners do not exist, or that they cannot be read."""
    snapshot = snapshot_of(*resources, absent=absent, unreadable=unreadable)
    return orphans.plan(None, snapshot, now=now, entropy=entropy())


def deleted(*resources: Any, absent: Any = OWNERS, unreadable: Unread = ()) -> tuple[Any, ...]:
    """What is deleted when the retention is over."""
    done = plan(*resources, absent=absent, unreadable=unreadable)
    kept = {each.metadata.name: stored(each) for each in objects(done.apply)}
    now = NOW + SETTINGS.deletion_retention
    left = (kept.get(each.metadata.name, each) for each in resources)
    later = plan(*left, absent=absent, unreadable=unreadable, now=now)
    assert later.apply == ()
    names = {each.metadata.name for each in (*objects(done.delete), *objects(later.delete))}
    return tuple(each for each in resources if each.metadata.name in names)


def test_what_has_lost_its_owner_is_deleted_after_a_live_read_of_the_owner_and_the_retention() -> None:
    assert reads(key_of_authority(), copy_of_credential()) == [
        Read(AUTHORITIES, "pki", "issuing", live=True, optional=True),
        Read(CREDENTIALS, "pki", "web", live=True, optional=True),
    ]
    assert deleted(key_of_authority(), copy_of_credential()) == (key_of_authority(), copy_of_credential())


@pytest.mark.requirement("SEC80")
def test_a_key_without_its_owner_says_since_when_and_until_when_it_is_kept() -> None:
    done = plan(copy_of_credential())
    (kept,) = objects(done.apply)
    assert done.delete == ()
    assert done.requeue_at == NOW + 7 * DAY
    assert (kept.data, kept.metadata.labels) == (copy_of_credential().data, copy_of_credential().metadata.labels)
    assert kept.metadata.resource_version == copy_of_credential().metadata.resource_version
    assert (deleted_at(kept.metadata), kept_until(kept.metadata)) == (NOW, NOW + 7 * DAY)
    again = plan(stored(kept), now=NOW + 6 * DAY)
    assert (again.apply, again.delete, again.requeue_at) == ((), (), NOW + 7 * DAY)
    spoilt = stored(changed(kept, annotations={**kept.metadata.annotations, KEPT_UNTIL: "soon"}))
    assert kept_until(objects(plan(spoilt).apply)[0].metadata) == NOW + 7 * DAY


@pytest.mark.requirement("SEC80")
@pytest.mark.parametrize(
    ("longest", "days"),
    [("0", 7), (str(3 * 86400), 7), (str(30 * 86400), 31), (None, 366), (str(900 * 86400), 366), ("many", 366)],
)
def test_a_signing_key_is_kept_until_the_last_certificate_is_off_the_list(longest: str | None, days: int) -> None:
    signer = pki.root(not_after=NOW + 365 * DAY)
    one = key_of_authority()
    annotations = {**one.metadata.annotations, **({LONGEST_CERTIFICATE: longest} if longest else {})}
    one = msgspec.structs.replace(changed(one, annotations=annotations), data=pair(signer))
    (kept,) = objects(plan(one).apply)
    assert kept_until(kept.metadata) == NOW + days * DAY


@pytest.mark.requirement("SEC56")
def test_nothing_is_deleted_whose_owner_was_not_read() -> None:
    assert deleted(key_of_authority(), copy_of_credential(), absent=()) == ()
    assert deleted(key_of_authority(), copy_of_credential(), absent=OWNERS[1:]) == (copy_of_credential(),)


def test_what_has_its_owner_is_none() -> None:
    there = (key_of_authority(), copy_of_credential(), authority(), credential())
    assert reads(*there) == []
    assert deleted(*there, absent=()) == ()


@pytest.mark.requirement("SEC61")
def test_an_owner_of_the_same_name_but_born_later_is_another_one() -> None:
    assert reads(key_of_authority(), authority(uid="another")) == [
        Read(AUTHORITIES, "pki", "issuing", live=True, optional=True)
    ]
    assert deleted(key_of_authority(), authority(uid="another")) == (key_of_authority(),)


@pytest.mark.parametrize(
    "metadata",
    [
        {"namespace": "elsewhere"},
        {"labels": {}},
        {"labels": {MANAGED_BY: "kms-acme", COMPONENT: "nonce-key", OWNER_UID: "x"}},
        {"labels": {MANAGED_BY: "kms-acme", COMPONENT: SIGNING_KEY}},
        {"labels": {MANAGED_BY: "helm", COMPONENT: SIGNING_KEY, OWNER_UID: "x"}},
        {"annotations": {}},
        {"annotations": {OWNER: "nonsense"}},
        {"annotations": {OWNER: "EABCredential pki/issuing"}},
    ],
)
def test_what_does_not_say_clearly_whose_it_is_is_left_alone(metadata: dict[str, Any]) -> None:
    one = changed(key_of_authority(), **metadata)
    assert reads(one) == []
    assert deleted(one) == ()


def test_what_belongs_to_a_namespace_of_another_operator_is_left_alone() -> None:
    settings = OperatorSettings("https://acme.example.com", RELEASE, watch_namespaces=("other",))
    assert reads(key_of_authority(), settings=settings) == []


@pytest.mark.requirement("SEC80")
def test_keys_of_one_namespace_do_not_fill_the_release_namespace_and_the_oldest_stay() -> None:
    def copy(number: int, namespace: str = "pki") -> Secret:
        owner = credential(f"c-{number}", namespace)
        one = internal_secret(
            RELEASE, f"eab-{namespace}-{number}", component=VERIFICATION_KEY, owner=owner, kind=CREDENTIALS, data={}
        )
        return changed(stored(one), creation_timestamp=NOW + DAY / 100_000 * number)

    many = [copy(number) for number in range(orphans.MAXIMUM_KEPT + 3)]
    other = copy(5_000, "other")
    owners = [
        (namespace, f"c-{number}") for namespace, number in (("other", 5_000), *(("pki", n) for n in range(1_003)))
    ]
    done = plan(*many[::-1], other, absent=[("eabcredentials", each) for each in owners])
    assert {each.metadata.name for each in objects(done.delete)} == {each.metadata.name for each in many[-3:]}
    assert other.metadata.name in {each.metadata.name for each in objects(done.apply)}
    assert len(done.apply) == orphans.MAXIMUM_KEPT + 1
    kept = [stored(each) for each in objects(done.apply)]
    assert len(reads(*kept)) == orphans.ENDING_AT_ONCE, "what is kept costs few reads"
    later = plan(*kept, absent=[("eabcredentials", each) for each in owners[:10]], now=NOW + 8 * DAY)
    assert len(later.delete) == 10
    assert later.requeue_at is not None
    assert later.requeue_at <= NOW + 8 * DAY, "the others are next"


@pytest.mark.requirement("SEC77", "SEC82")
def test_what_belongs_to_an_owner_that_cannot_be_read_stays() -> None:
    key = key_of_authority()
    assert deleted(key) == (key,)
    assert deleted(key, unreadable=[(AUTHORITIES, unread(authority()))]) == ()
    assert deleted(key, unreadable=[(AUTHORITIES, unread(authority(uid="another")))]) == (key,)
