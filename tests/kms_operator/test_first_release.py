"""What the operator of the first release has stored: today's goes on with the same keys and certificates."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.apiobjects import JSON, ObjectKey
from tests.support.operated import SETTINGS
from tests.support.world import World, world

STORED = json.loads((Path(__file__).parents[1] / "support" / "first_release" / "operator.json").read_text())
"""Internal, intermediate and imported CAs, one with a published root; profiles, one open and one with an Issuer;
credentials, one expired and one with a Secret of its own; and all that the operator made of them."""


def stored() -> dict[ObjectKey, JSON]:
    """The objects by key."""
    return {key_of(each["plural"], each["object"]["metadata"]): copy.deepcopy(each["object"]) for each in STORED}


def key_of(plural: str, metadata: JSON) -> ObjectKey:
    return ObjectKey(plural, metadata.get("namespace", ""), metadata["name"])


def ready(objects: dict[ObjectKey, JSON]) -> dict[ObjectKey, list[tuple[str, str]]]:
    """Status and reason of Ready, by object."""
    return {
        key: [(each["status"], each["reason"]) for each in body["status"]["conditions"] if each["type"] == "Ready"]
        for key, body in objects.items()
        if "status" in body
    }


@pytest.fixture
async def upgraded() -> AsyncIterator[World]:
    """An operator of today that has reconciled what the API server has after an upgrade."""
    async with world(dataclasses.replace(SETTINGS, open_profiles_from=("pki",))) as one:
        one.api.store.by_key = stored()
        one.api.store.version = 10_000
        one.serve_optional_kinds()
        await one.reconcile_all()
        await one.reconcile_all()
        yield one


def without_events(running: World) -> dict[ObjectKey, Any]:
    return {key: body for key, body in running.api.store.by_key.items() if key.plural != "events"}


async def test_no_key_and_no_certificate_changes(upgraded: World) -> None:
    before, after = stored(), without_events(upgraded)
    assert after.keys() == before.keys()
    for key, body in before.items():
        assert after[key].get("data") == body.get("data"), key
    for key in (each for each in before if each.plural == "certificateauthorities"):
        for field in ("certificate", "chain", "subjectKeyID", "serialNumber"):
            assert after[key]["status"][field] == before[key]["status"][field], key


async def test_what_was_ready_is_ready(upgraded: World) -> None:
    assert ready(without_events(upgraded)) == ready(stored())


async def test_nothing_is_written_twice(upgraded: World) -> None:
    upgraded.api.requests.clear()
    await upgraded.reconcile_all()
    assert upgraded.api.writes == []
