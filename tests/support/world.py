"""A controller on an API server with a user's four manifests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

from kms.clock import Entropy
from kms.resources.core import Secret
from kms.resources.credentials import EABCredential
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, NAMESPACES, POLICIES, PROFILES, SECRETS, Kind
from kms.resources.meta import condition
from kms.resources.orders import AuthorityType
from kms_operator.controller import Controller
from kms_operator.kinds import OPTIONAL_KINDS
from kms_operator.metrics import Metrics
from kms_operator.observation import Look
from kms_operator.queue import WorkQueue
from kms_operator.settings import OperatorSettings
from kms_operator.triggers import ReconcileRequest
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.eventually import in_background, until
from tests.support.operated import NOW, SETTINGS, authority, credential, entropy, namespace, policy, profile


class World:
    """An API server with a user's four manifests, and a controller."""

    def __init__(self, api: FakeApiServer, controller: Controller, metrics: Metrics) -> None:
        self.api = api
        self.controller = controller
        self.metrics = metrics
        self.now = NOW
        self.entropy: Entropy = entropy()

    async def tell(self) -> None:
        """Pass the current objects to the controller, as lists would."""
        cluster = await self.api.cluster()
        kinds: tuple[Kind[Any], ...] = (AUTHORITIES, POLICIES, PROFILES, CREDENTIALS, SECRETS, NAMESPACES)
        for kind in kinds:
            labels = "app.kubernetes.io/managed-by=kms-acme" if kind is SECRETS else ""
            listing = await cluster.list(kind, labels=labels)
            self.controller.handle_list(kind, listing)

    async def settle(self) -> None:
        """Reconcile until the queue is empty."""
        async with in_background(self.controller.run()):
            await until(lambda: len(self.controller.queue) == 0, seconds=10)

    async def reconcile(self) -> None:
        """Pass the current objects to the controller, and reconcile what they change."""
        await self.tell()
        await self.settle()

    async def reconcile_all(self) -> None:
        """Reconcile every object."""
        await self.tell()
        self.controller.enqueue_all()
        await self.settle()

    def serve_optional_kinds(self) -> None:
        """Let the controller know that cert-manager and trust-manager are installed."""
        for kind in OPTIONAL_KINDS:
            self.controller.handle_availability(kind, None)

    def reason(self, kind: Any = CREDENTIALS, name: str = "web", type_: str = "Ready") -> str | None:
        found = self.api.read(kind, "pki", name)
        assert found is not None
        stated = condition(found.status.conditions, type_)
        return stated.reason if stated else None

    def secrets(self, prefix: str = "") -> list[str]:
        keys = [each for each in self.api.store.by_key if each.plural == "secrets"]
        return sorted(f"{each.namespace}/{each.name}" for each in keys if each.name.startswith(prefix))

    def secret(self, name: str, namespace: str = "pki") -> Secret:
        found = self.api.read(SECRETS, namespace, name)
        assert found is not None
        return found

    def credential(self) -> EABCredential:
        found = self.api.read(CREDENTIALS, "pki", "web")
        assert found is not None
        return found

    def count(self, kind: str, result: str) -> float:
        return (
            self.metrics.registry.get_sample_value("kms_operator_reconciles_total", {"kind": kind, "result": result})
            or 0.0
        )

    def events(self) -> list[str]:
        return sorted(each["reason"] for key, each in self.api.store.by_key.items() if key.plural == "events")


@asynccontextmanager
async def world(
    settings: OperatorSettings = SETTINGS,
    *,
    queue: WorkQueue[ReconcileRequest] | None = None,
    looks: Mapping[AuthorityType, Look] = MappingProxyType({}),
) -> AsyncIterator[World]:
    async with running_api() as api:
        for kind, each in (
            (AUTHORITIES, authority()),
            (POLICIES, policy()),
            (PROFILES, profile()),
            (CREDENTIALS, credential()),
        ):
            api.put(kind, each)  # type: ignore[misc]
        api.put(NAMESPACES, namespace("pki"))
        metrics = Metrics()
        cluster = await api.cluster(metrics=metrics.api)
        one: World
        controller = Controller(
            settings,
            cluster,
            metrics,
            clock=lambda: one.now,
            entropy=lambda count: one.entropy(count),  # noqa: PLW0108 - `one` is made later, and may be given another
            instance="test",
            queue=queue,
            looks=looks,
        )
        one = World(api, controller, metrics)
        yield one
