"""Orphaned objects: what outlived its owner, and what only looks so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from kms.resources.core import Secret
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, Kind
from kms.resources.meta import Unreadable
from kms.resources.secret_names import COMPONENT, MANAGED_BY, OWNER, OWNER_UID, SIGNING_KEY, VERIFICATION_KEY
from kms_operator.objects import internal_secret
from kms_operator.reconcilers import orphans
from kms_operator.settings import OperatorSettings
from kms_operator.snapshot import Read
from tests.support.operated import (
    NOW,
    RELEASE,
    SETTINGS,
    authority,
    credential,
    entropy,
    objects,
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


def deleted(
    *resources: Any, absent: Any = OWNERS, unreadable: Iterable[tuple[Kind[Any], Unreadable]] = ()
) -> tuple[Any, ...]:
    """What is deleted once the API server has said that the owners do not exist, or that they cannot be read."""
    snapshot = snapshot_of(*resources, absent=absent, unreadable=unreadable)
    plan = orphans.plan(None, snapshot, now=NOW, entropy=entropy())
    return objects(plan.delete)


def test_what_has_lost_its_owner_is_deleted_after_a_live_read_of_the_owner() -> None:
    assert reads(key_of_authority(), copy_of_credential()) == [
        Read(AUTHORITIES, "pki", "issuing", live=True, optional=True),
        Read(CREDENTIALS, "pki", "web", live=True, optional=True),
    ]
    assert deleted(key_of_authority(), copy_of_credential()) == (key_of_authority(), copy_of_credential())


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


@pytest.mark.requirement("SEC77", "SEC82")
def test_what_belongs_to_an_owner_that_cannot_be_read_stays() -> None:
    key = key_of_authority()
    assert deleted(key) == (key,)
    assert deleted(key, unreadable=[(AUTHORITIES, unread(authority()))]) == ()
    assert deleted(key, unreadable=[(AUTHORITIES, unread(authority(uid="another")))]) == (key,)
