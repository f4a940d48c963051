"""Notifications on a real API server: the operator's copy of the key, the server's Leases, and a real receiver."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from e2e.support.enrollment import Enrollment
from e2e.support.programs import RELEASE
from kms.resources.kinds import PROFILES
from kms.resources.notifications import KEY_TYPE, PROGRESS, Progress, progress_lease
from tests.support.eventually import becomes, until
from tests.support.installation import PROFILE, Installation
from tests.support.receivers import BUNDLE, KEY, Receiver, running_receiver


@pytest.fixture
def enrollment(installation: Installation) -> Iterator[Enrollment]:
    """An open profile in the release namespace, which may have receivers, and the key of its receiver."""
    yield installation.profile(RELEASE, externalAccountBinding="Disabled")
    things = "certificateprofile", "certificatepolicy", "certificateauthority"
    for each in (*(f"{each}/{PROFILE}" for each in things), "secret/notification-key"):
        installation.cluster.kubectl("delete", each, f"--namespace={RELEASE}", "--ignore-not-found", "--wait=false")


async def watched(installation: Installation, receiver: Receiver) -> None:
    """Give the profile the receiver, and wait until the server knows it."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": KEY_TYPE,
        "metadata": {"name": "notification-key", "namespace": RELEASE},
        "data": {"secret": base64.b64encode(KEY).decode()},
    }
    section = {"url": receiver.url, "secretRef": {"name": "notification-key"}, "caBundle": BUNDLE}
    kubectl = installation.cluster.kubectl
    kubectl("apply", "--filename=-", stdin=json.dumps(secret))
    patch = json.dumps({"spec": {"notifications": section}})
    kubectl("patch", "certificateprofile", PROFILE, f"--namespace={RELEASE}", "--type=merge", f"--patch={patch}")

    async def is_known() -> bool:
        return await asyncio.to_thread(progress, installation) is not None

    await becomes(is_known)


def profile(installation: Installation) -> dict[str, Any]:
    return installation.object(PROFILES.plural, RELEASE, PROFILE)


def progress(installation: Installation) -> Progress | None:
    """How far the receiver has been told, as the server has stored it."""
    uid = profile(installation)["metadata"]["uid"]
    leases = installation.objects("leases", RELEASE)
    found = [each for each in leases if each["metadata"]["name"] == progress_lease("kms-acme", uid)]
    texts = [each["metadata"].get("annotations", {}).get(PROGRESS + uid) for each in found]
    return msgspec.json.decode(texts[0], type=Progress) if texts and texts[0] else None


def condition(installation: Installation) -> str:
    """The reason of the condition Notifications, after the operator has looked again."""
    touched = ("annotate", "certificateprofile", PROFILE, f"--namespace={RELEASE}", "--overwrite")
    installation.cluster.kubectl(*touched, f"looked-at={msgspec.json.encode(progress(installation)).hex()[-40:]}")
    found = profile(installation)["status"]["conditions"]
    return next((each["reason"] for each in found if each["type"] == "Notifications"), "")


@pytest.mark.requirement("P15")
async def test_a_receiver_gets_what_happens_over_failures_and_a_restart_and_the_profile_says_how_it_goes(
    installation: Installation, enrollment: Enrollment
) -> None:
    async def becomes_known(reason: str) -> None:
        async def is_so() -> bool:
            return await asyncio.to_thread(condition, installation) == reason

        await becomes(is_so)

    async def is_failing() -> bool:
        known = await asyncio.to_thread(progress, installation)
        return known is not None and known.failing_since is not None

    async with running_receiver() as receiver, installation.client(enrollment) as client:
        await watched(installation, receiver)
        await client.obtain(["first.test"], installation.answerer.add)
        await until(lambda: receiver.events)
        await becomes_known("Delivered")
        receiver.status = 503
        await client.obtain(["second.test"], installation.answerer.add)
        await becomes(is_failing)
        await becomes_known("Failing")
        await asyncio.to_thread(installation.programs.server.restart)
        receiver.status = 204
        await until(lambda: len(receiver.events) >= 2)
        await becomes_known("Delivered")
    told = {each["id"]: each["data"]["names"] for each in receiver.events}
    assert list(told.values()) == [["first.test"], ["second.test"]]
