"""The console against a real API server, with the rights of somebody who may only view one namespace."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from e2e.cluster.cluster import Cluster
from kms.clock import system_clock
from kms.cluster import client
from kms.resources.kinds import PROFILES
from kms.resources.meta import GROUP, LocalRef, ObjectMeta
from kms.resources.profiles import AcmeEnrollment, CertificateProfile, Enrollment, ProfileSpec
from kms_acme.console.changes import Changes
from kms_acme.console.inventory import Inventory

pytestmark = [pytest.mark.cluster, pytest.mark.requirement("P8", "P9")]


async def read(kubeconfig: str, namespace: str | None, *, events: int = 0) -> Inventory:
    """What the console reads with that kubeconfig, once everything was read or refused."""
    cluster = await client.Cluster.connect(kubeconfig=kubeconfig)
    changes = Changes()
    inventory = Inventory(cluster, namespace, clock=system_clock, changes=changes)
    reading = asyncio.create_task(inventory.run())
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(each.settled.wait() for each in inventory.collections))
            while len(inventory.events.entries) < events:
                await changes.wait(changes.count, seconds=1)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await cluster.close()
    return inventory


async def test_who_may_view_a_namespace_sees_it_with_its_events_and_no_other(
    installed: Cluster, namespace: str
) -> None:
    installed.kubectl("create", "serviceaccount", "viewer", f"--namespace={namespace}")
    installed.kubectl(
        *("create", "rolebinding", "viewer", "--clusterrole=view", f"--namespace={namespace}"),
        f"--serviceaccount={namespace}:viewer",
    )
    owner = await client.Cluster.connect(kubeconfig=str(installed.kubeconfig))
    try:
        enrollment = Enrollment(acme=AcmeEnrollment())
        none = LocalRef(name="none")
        spec = ProfileSpec(issuer_ref=none, policy_ref=none, enrollment=enrollment)
        metadata = ObjectMeta(name="web", namespace=namespace)
        profile = await owner.create(PROFILES, CertificateProfile(metadata=metadata, spec=spec))
        for controller in (f"{GROUP}/server", "example.com/other"):
            await owner.create_event(
                PROFILES,
                profile,
                time=datetime.now(UTC),
                type_="Warning",
                reason="RefusedByPolicy",
                action="Order",
                note="A request was refused by the rules of this profile.",
                controller=controller,
                instance="here",
            )
    finally:
        await owner.close()
    kubeconfig = str(installed.kubeconfig_for("viewer", namespace))
    inventory = await read(kubeconfig, namespace, events=1)
    assert [each.problem for each in inventory.collections] == [None] * 7
    assert list(inventory.profiles.entries) == [(namespace, "web")]
    assert [(each.reason, each.count) for each in inventory.events.entries.values()] == [("RefusedByPolicy", 1)]
    everywhere = await read(kubeconfig, None)
    assert [each.is_forbidden for each in everywhere.collections] == [True] * 7
