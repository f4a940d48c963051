"""Carries outcomes out: the one place of the operator that writes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kms.clock import Clock
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError, Forbidden, Invalid, NotFound
from kms.resources.core import Secret
from kms.resources.kinds import SECRETS, Kind
from kms.resources.meta import Resource
from kms_operator.plan import Event, Manifest, Outcome, Refusal

FIELD_MANAGER = "kms-acme-operator"
CONTROLLER = "pki.kms.hanzo.ai/operator"

Remember = Callable[[Kind[Any], Resource], None]
Forget = Callable[[Kind[Any], Resource], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Applier:
    """`remember` and `forget` are told of each write, so that the next reconciliation sees it before the watch does."""

    cluster: Cluster
    remember: Remember
    forget: Forget
    clock: Clock
    instance: str

    async def apply(self, outcome: Outcome, *, kind: Kind[Any] | None, resource: Resource | None) -> None:
        """Delete, write, state, tell: in this order, so that what is told is true.

        `kind` and `resource` are what the outcome is about; None for what belongs to no resource. Raises Conflict or
        AlreadyExists where something is not as it was seen, and whatever else the API server answers.
        """
        for manifest in outcome.withdraw:
            await self.delete(manifest.kind, manifest.object)
        for secret in outcome.delete:
            await self.delete(SECRETS, secret)
        for secret in outcome.apply:
            await self._write(secret)
        for manifest in outcome.objects:
            await self._put(manifest)
        if kind is not None and resource is not None:
            await self._state(kind, resource, outcome)
        for event in outcome.events:
            await self._tell(event, kind=kind, resource=resource)

    async def attempt(self, withdraw: Iterable[Manifest], objects: Iterable[Manifest]) -> tuple[Refusal, ...]:
        """Delete and write as far as the API server lets us: what it refuses keeps nothing else from being done.

        Raises Conflict or AlreadyExists as above, and Unavailable.
        """
        refused: list[Refusal] = []

        async def each(manifest: Manifest, act: Callable[[Manifest], Awaitable[None]]) -> None:
            try:
                await act(manifest)
            except (Forbidden, Invalid, NotFound) as error:
                refused.append(Refusal(manifest, isinstance(error, Forbidden), str(error)))

        for manifest in withdraw:
            await each(manifest, self._withdraw)
        for manifest in objects:
            await each(manifest, self._put)
        return tuple(refused)

    async def _withdraw(self, manifest: Manifest) -> None:
        await self.delete(manifest.kind, manifest.object)

    async def delete(self, kind: Kind[Any], object_: Resource) -> None:
        """Delete the object as it was seen; that it has gone already is as good."""
        metadata = object_.metadata
        with suppress(NotFound):
            await self.cluster.delete(
                kind,
                metadata.namespace,
                metadata.name,
                uid=metadata.uid,
                resource_version=metadata.resource_version,
            )
        self.forget(kind, object_)
        logger.info("%s deleted", kind.kind.lower(), extra=_about(kind, object_))

    async def _write(self, secret: Secret) -> None:
        if secret.metadata.resource_version:
            written = await self.cluster.apply(SECRETS, secret, manager=FIELD_MANAGER)
        else:
            written = await self.cluster.create(SECRETS, secret)
        self.remember(SECRETS, written)
        logger.info("secret written", extra=_about(SECRETS, written))

    async def _put(self, manifest: Manifest) -> None:
        """Apply, also what is new: a field that is left out later on has to be ours to go.

        Nothing asks the API server to apply only where nothing is. What is new was read a moment ago and was not there;
        should somebody have made one in between, Conflict is raised for each field that he has set otherwise.
        """
        kind, wanted = manifest.kind, manifest.object
        known = bool(wanted.metadata.resource_version)
        written = await self.cluster.apply(kind, wanted, manager=FIELD_MANAGER, force=known)
        self.remember(kind, written)
        logger.info("%s written", kind.kind.lower(), extra=_about(kind, written))

    async def _state(self, kind: Kind[Any], resource: Any, outcome: Outcome) -> None:
        """Write the status where it says something new."""
        if outcome.status is None or outcome.status == resource.status:
            return
        metadata = {
            "namespace": resource.metadata.namespace,
            "name": resource.metadata.name,
            "resourceVersion": resource.metadata.resource_version,
        }
        body = {"metadata": metadata, "status": outcome.status}
        self.remember(kind, await self.cluster.apply(kind, body, manager=FIELD_MANAGER, subresource="status"))

    async def _tell(self, event: Event, *, kind: Kind[Any] | None, resource: Resource | None) -> None:
        """Log the event, and post it as an Event; an Event that is lost is no reason to reconcile again."""
        about = f"{resource.metadata.namespace}/{resource.metadata.name}" if resource is not None else None
        level = logging.INFO if event.type == "Normal" else logging.WARNING
        logger.log(
            level,
            event.message,
            extra={"reason": event.reason, "kind": kind.kind if kind else None, "resource": about},
        )
        if kind is None or resource is None:
            return
        try:
            await self.cluster.create_event(
                kind,
                resource,
                type_=event.type,
                reason=event.reason,
                action="Reconcile",
                note=event.message,
                controller=CONTROLLER,
                instance=self.instance,
                time=self.clock(),
            )
        except ClusterError as error:
            logger.warning("event not posted", extra={"reason": event.reason, "error": str(error)})


def _about(kind: Kind[Any], object_: Resource) -> dict[str, str]:
    metadata = object_.metadata
    return {kind.kind.lower(): f"{metadata.namespace}/{metadata.name}".lstrip("/")}
