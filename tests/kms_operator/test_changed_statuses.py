"""What others write into a status is never trusted: it is written anew, and ends no reconciliation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from kms.resources.authorities import FormerKey, FormerRoot
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, POLICIES, PROFILES, SECRETS, Kind
from kms.resources.meta import Condition, LocalRef
from tests.support import pki
from tests.support.operated import NOW, authority, certificate_chain, credential, profile
from tests.support.world import World

FOREIGN = certificate_chain(pki.root())
GARBAGE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
READY_NOT = Condition(type="Ready", status="False", reason="Fake", message="", last_transition_time=NOW)
MORE = Condition(type="Fake", status="True", reason="Fake", message="", last_transition_time=NOW)


async def change(running: World, kind: Kind[Any], name: str, fields: dict[str, Any]) -> tuple[Any, Any]:
    """Change the status as another program does, and reconcile; returns the status before and after."""
    before: Any = running.api.read(kind, "pki", name)
    status = msgspec.structs.replace(before.status, **fields)
    running.api.put(kind, msgspec.structs.replace(before, status=status))
    await running.reconcile()
    after: Any = running.api.read(kind, "pki", name)
    return before.status, after.status


@pytest.mark.parametrize(
    "fields",
    [
        {"chain": "garbage"},
        {"chain": GARBAGE},
        {"chain": ""},
        {"chain": None},
        {"chain": FOREIGN},
        {"certificate": "garbage"},
        {"certificate": None},
        {"certificate": FOREIGN, "chain": FOREIGN},
        {"alternate_chains": ("garbage", FOREIGN)},
        {"serial_number": "-1"},
        {"subject_key_id": None},
        {"subject_key_id": "00"},
        {"former_keys": (FormerKey(subject_key_id="00", not_after=NOW + timedelta(days=9)),)},
        {"not_after": NOW},
        {"former_roots": (FormerRoot(certificate="garbage", replaced_at=NOW),)},
        {"former_roots": (FormerRoot(certificate=FOREIGN, replaced_at=NOW),)},
        {"type": "Imported", "subject": "CN=other"},
        {"conditions": ()},
        {"conditions": (READY_NOT, MORE)},
        {"observed_generation": 99},
    ],
)
async def test_the_status_of_a_ca_is_put_right(running: World, fields: dict[str, Any]) -> None:
    before, after = await change(running, AUTHORITIES, "issuing", fields)
    assert msgspec.structs.replace(after, conditions=()) == msgspec.structs.replace(before, conditions=())
    assert [(each.type, each.status, each.reason) for each in after.conditions] == [("Ready", "True", "Issued")]
    assert running.count("certificateauthorities", "failed") == 0


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (POLICIES, {"conditions": (READY_NOT,)}),
        (POLICIES, {"conditions": (MORE,), "observed_generation": 7}),
        (PROFILES, {"conditions": (READY_NOT, MORE)}),
        (PROFILES, {"directory_url": "https://elsewhere.example/", "suspended_namespaces": ("pki",)}),
        (CREDENTIALS, {"conditions": (READY_NOT, MORE)}),
        (CREDENTIALS, {"key_id": "other", "accounts": 77, "secret_name": "other"}),
    ],
)
async def test_other_statuses_are_put_right(running: World, kind: Kind[Any], fields: dict[str, Any]) -> None:
    before, after = await change(running, kind, "web", fields)
    said = [(each.type, each.status, each.reason) for each in before.conditions]
    assert [(each.type, each.status, each.reason) for each in after.conditions] == said
    assert msgspec.structs.replace(after, conditions=()) == msgspec.structs.replace(before, conditions=())


async def test_a_credential_with_names_whose_status_denies_its_key_keeps_it(running: World) -> None:
    named = credential(spec={"names": {"dnsNames": {"allowed": ["shop.apps.example.com"]}}})
    running.api.put(CREDENTIALS, msgspec.structs.replace(named, status=running.credential().status))
    await running.reconcile()
    denied = msgspec.structs.replace(READY_NOT, reason="InvalidRules")
    generation = running.credential().metadata.generation
    fields = {"key_id": None, "conditions": (denied,), "observed_generation": generation}
    copies = running.secrets("eab-")
    before, after = await change(running, CREDENTIALS, "web", fields)
    assert after.key_id == before.key_id is not None
    assert [(each.type, each.reason) for each in after.conditions] == [("Ready", "Issued")]
    assert running.secrets("eab-") == copies


async def test_a_profile_made_again_has_its_directory_secret_once_the_old_one_is_gone(running: World) -> None:
    running.api.remove(PROFILES, "pki", "web")
    running.api.put(PROFILES, profile(uid="another"))
    await running.reconcile()
    assert running.reason(PROFILES, type_="Published") == "SecretExists"
    old = running.secret("web-acme")
    running.api.remove(SECRETS, "pki", "web-acme")  # as the garbage collector does
    running.controller.handle_delete(SECRETS, old)
    await running.settle()
    assert running.reason(PROFILES, type_="Published") == "Published"
    assert running.secret("web-acme").metadata.owner_references[0].uid == "another"


async def test_the_former_root_of_a_profile_outlives_its_status_and_the_profile(running: World) -> None:
    old = running.secret("web-acme").text("chain.crt") or ""
    running.api.put(AUTHORITIES, authority("issuing-2"))
    moved = profile()
    moved = msgspec.structs.replace(
        moved, spec=msgspec.structs.replace(moved.spec, issuer_ref=LocalRef(name="issuing-2"))
    )
    stored: Any = running.api.read(PROFILES, "pki", "web")
    running.api.put(PROFILES, msgspec.structs.replace(moved, status=stored.status))
    await running.reconcile()
    both = running.secret("web-acme").text("chain.crt") or ""
    assert both.endswith(old)
    assert not both.startswith(old)
    foreign = FormerRoot(certificate=FOREIGN, replaced_at=NOW)
    before, after = await change(running, PROFILES, "web", {"former_roots": (foreign,), "root": FOREIGN})
    assert (after.former_roots, after.root) == (before.former_roots, before.root)
    assert running.secret("web-acme").text("chain.crt") == both
    running.api.remove(PROFILES, "pki", "web")
    secret = running.secret("web-acme")
    running.api.remove(SECRETS, "pki", "web-acme")  # as the garbage collector does
    running.controller.handle_delete(SECRETS, secret)
    await running.reconcile()
    again = msgspec.structs.replace(moved, metadata=msgspec.structs.replace(moved.metadata, uid="another"))
    running.api.put(PROFILES, again)
    await running.reconcile()
    assert running.secret("web-acme").text("chain.crt") == both


async def test_a_falsified_ca_status_does_not_reach_what_is_published(running: World) -> None:
    running.serve_optional_kinds()
    stored: Any = running.api.read(AUTHORITIES, "pki", "issuing")
    published = authority(trust={"configMap": {"name": "example-ca"}})
    running.api.put(AUTHORITIES, msgspec.structs.replace(published, status=stored.status))
    await running.reconcile()
    running.api.requests.clear()
    fields = {"chain": FOREIGN, "former_roots": (FormerRoot(certificate=FOREIGN, replaced_at=NOW),)}
    await change(running, AUTHORITIES, "issuing", fields)
    written = [each for each in running.api.writes if each.plural in {"configmaps", "secrets"}]
    assert written == []
