"""Strays: what outlived its owner, and what only looks so."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kms.resources.core import Secret
from kms.resources.kinds import AUTHORITIES, CREDENTIALS
from kms.resources.secret_names import COMPONENT, MANAGED_BY, OWNER, OWNER_UID, SIGNING_KEY, VERIFICATION_KEY
from kms_operator.objects import internal_secret
from kms_operator.reconcilers.orphans import strays
from kms_operator.settings import OperatorSettings
from tests.support.operated import RELEASE, authority, credential, snapshot_of, stored


def key_of_authority() -> Secret:
    return stored(internal_secret(RELEASE, "ca-1", component=SIGNING_KEY, owner=authority(), kind=AUTHORITIES, data={}))


def copy_of_credential() -> Secret:
    return stored(
        internal_secret(RELEASE, "eab-1", component=VERIFICATION_KEY, owner=credential(), kind=CREDENTIALS, data={})
    )


def changed(one: Secret, **metadata: Any) -> Secret:
    return msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, **metadata))


def test_what_has_lost_its_owner_is_a_stray_and_says_whom_to_ask_for() -> None:
    found = strays(snapshot_of(key_of_authority(), copy_of_credential()))
    assert [(each.kind, each.owner, each.uid) for each in found] == [
        (AUTHORITIES, ("pki", "issuing"), "uid-pki-issuing"),
        (CREDENTIALS, ("pki", "web"), "uid-pki-web"),
    ]


def test_what_has_its_owner_is_none() -> None:
    assert strays(snapshot_of(key_of_authority(), copy_of_credential(), authority(), credential())) == ()


@pytest.mark.requirement("SEC61")
def test_an_owner_of_the_same_name_but_born_later_is_another_one() -> None:
    assert len(strays(snapshot_of(key_of_authority(), authority(uid="another")))) == 1


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
    assert strays(snapshot_of(changed(key_of_authority(), **metadata))) == ()


def test_what_belongs_to_a_namespace_of_another_operator_is_left_alone() -> None:
    settings = OperatorSettings("https://acme.example.com", RELEASE, watch_namespaces=("other",))
    assert strays(snapshot_of(key_of_authority(), settings=settings)) == ()
