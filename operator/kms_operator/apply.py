"""Carries plans out: the only place of the operator that writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from kms.clock import Clock
from kms.cluster.client import Cluster
from kms.cluster.errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unavailable,
    Undecodable,
)
from kms.contract import READY, UNREADABLE
from kms.resources.kinds import SECRETS, Kind
from kms.resources.meta import Condition, Resource, Unreadable
from kms_operator.plan import FORBIDDEN, REFUSED, UNAVAILABLE, Denial, Event, Manifest, Plan, Refusal

FIELD_MANAGER = "kms-acme-operator"
CONTROLLER = "pki.kms.hanzo.ai/operator"

logger = logging.getLogger(__name__)


class WritesRefused(ClusterError):
    """The API server refused some of the writes of a plan; everything else of it is done."""

    def __init__(self, refused: Sequence[Refusal]) -> None:
        super().__init__("; ".join(each.message for each in refused))


def denial_of(error: ClusterError) -> Denial:
    """Return what a condition says of an error of the API server."""
    if isinstance(error, Unavailable):
        return Denial(UNAVAILABLE, str(error))
    return Denial(FORBIDDEN if isinstance(error, Forbidden) else REFUSED, str(error))


@dataclass(frozen=True, slots=True)
class Applied:
    """A plan that was carried out: when to reconcile again, and how many objects were written or deleted."""

    requeue_at: datetime | None
    writes: int


@dataclass(slots=True)
class _CarriedOut:
    """What became of the deletions and writes of a plan.

    `lost`: an object is not as the cache has it. `passing`: something was refused that may soon be possible.
    """

    writes: int = 0
    refused: list[Refusal] = field(default_factory=list)
    lost: Conflict | AlreadyExists | None = None
    passing: Unavailable | None = None


@dataclass(frozen=True, slots=True)
class PlanApplier:
    """Applies plans; calls `on_written` and `on_deleted` so that the next reconciliation sees the write at once."""

    cluster: Cluster
    on_written: Callable[[Kind[Any], Resource], None]
    on_deleted: Callable[[Kind[Any], Resource], None]
    clock: Clock
    instance: str

    async def apply(
        self, plan: Plan, *, kind: Kind[Any] | None, resource: Resource | None, persistent: bool = True
    ) -> Applied:
        """Delete, write, state the status, post Events.

        `kind` and `resource` are what the plan is for; None for a plan without resource. What is refused stops the
        later writes of its part only. Raises Conflict or AlreadyExists if an object has changed; WritesRefused, after
        the status says so, if something was refused; and other errors of the API server. Unless it is `persistent`,
        that something is unavailable is no refusal yet, and is raised.
        """
        carried_out = await self._carry_out(plan)
        refused = carried_out.refused
        if carried_out.lost is not None:
            raise carried_out.lost
        if carried_out.passing is not None and not persistent:
            raise carried_out.passing
        if refused:
            if plan.on_refusals is None:
                raise WritesRefused(refused)
            plan = plan.on_refusals(refused)
        if kind is not None and resource is not None:
            await self._write_status(kind, resource, plan)
        for event in dict.fromkeys(plan.events):  # two conditions may say the same
            await self._post(event, kind=kind, resource=resource)
        if refused:
            raise WritesRefused(refused)
        return Applied(plan.requeue_at, carried_out.writes)

    async def report_unreadable(self, kind: Kind[Any], unreadable: Unreadable) -> None:
        """Post an Event on an object that does not fit its model, and set its condition Ready to False.

        The condition gets a field manager of its own: what the status says otherwise cannot be read, and must stay.
        Raises ClusterError if the API server does not answer.
        """
        message = f"cannot be read, and counts as absent: {unreadable}; correct the field, or delete the object"
        metadata = unreadable.metadata
        identity = {
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        }
        stated = Condition(
            type=READY, status="False", reason=UNREADABLE, message=message, last_transition_time=self.clock()
        )
        body = {"metadata": identity, "status": {"conditions": [stated]}}
        try:
            await self.cluster.apply(kind, body, manager=f"{FIELD_MANAGER}-unreadable", subresource="status")
        except (Undecodable, Invalid, NotFound, Conflict) as error:
            # Undecodable: it was written. Invalid: the schema has become stricter and refuses any write.
            logger.debug("condition of an unreadable object", extra={"error": str(error)})
        await self._post(Event(UNREADABLE, message, "Warning"), kind=kind, resource=unreadable)

    async def _carry_out(self, plan: Plan) -> _CarriedOut:
        """Delete and write, except what belongs to a part of which something failed before."""
        result = _CarriedOut()
        stopped = set[str]()
        steps = [*((self._delete, each) for each in plan.delete), *((self._write, each) for each in plan.apply)]
        for act, manifest in steps:
            if manifest.part in stopped:
                continue
            try:
                await act(manifest)
                result.writes += 1
            except (Conflict, AlreadyExists) as error:
                stopped.add(manifest.part)
                result.lost = result.lost or error
            except ClusterError as error:
                stopped.add(manifest.part)
                result.refused.append(Refusal(manifest, denial_of(error)))
                if isinstance(error, Unavailable):
                    result.passing = error
        return result

    async def _delete(self, manifest: Manifest) -> None:
        """Delete the object if it is unchanged; it may be gone already, or wait for finalizers of others."""
        kind, metadata = manifest.kind, manifest.object.metadata
        if metadata.deletion_timestamp is not None:
            return
        with suppress(NotFound):
            await self.cluster.delete(
                kind,
                metadata.namespace,
                metadata.name,
                uid=metadata.uid,
                resource_version=metadata.resource_version,
            )
        self.on_deleted(kind, manifest.object)
        logger.info("%s deleted", kind.kind.lower(), extra=_log_name(kind, manifest.object))

    async def _write(self, manifest: Manifest) -> None:
        """Create or apply the object.

        A new Secret is created, so that one that exists is never overwritten. Other objects are applied even if they
        are new, because server-side apply removes fields only from their manager. Without `force` another manager's
        value is a Conflict, so an object that was created meanwhile is not overwritten either.
        """
        kind, wanted = manifest.kind, manifest.object
        exists = bool(wanted.metadata.resource_version)
        if kind is SECRETS and not exists:
            written = await self.cluster.create(kind, wanted)
        else:
            written = await self.cluster.apply(kind, wanted, manager=FIELD_MANAGER, force=exists)
        self.on_written(kind, written)
        logger.info("%s written", kind.kind.lower(), extra=_log_name(kind, written))

    async def _write_status(self, kind: Kind[Any], resource: Any, plan: Plan) -> None:
        """Write the status if it changes."""
        if plan.status is None or plan.status == resource.status:
            return
        metadata = {
            "namespace": resource.metadata.namespace,
            "name": resource.metadata.name,
            "resourceVersion": resource.metadata.resource_version,
        }
        body = {"metadata": metadata, "status": plan.status}
        written = await self.cluster.apply(kind, body, manager=FIELD_MANAGER, subresource="status")
        if written.status != plan.status:
            # Another manager has added fields, which server-side apply leaves as they are.
            restored = msgspec.structs.replace(written, status=plan.status)
            written = await self.cluster.replace_status(kind, restored)
        self.on_written(kind, written)

    async def _post(self, event: Event, *, kind: Kind[Any] | None, resource: Resource | Unreadable | None) -> None:
        """Log the Event and post it. A lost Event does not fail the reconciliation."""
        name = f"{resource.metadata.namespace}/{resource.metadata.name}" if resource is not None else None
        level = logging.INFO if event.type == "Normal" else logging.WARNING
        logger.log(
            level, event.message, extra={"reason": event.reason, "kind": kind.kind if kind else None, "resource": name}
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
            logger.warning("Event cannot be posted", extra={"reason": event.reason, "error": str(error)})


def _log_name(kind: Kind[Any], object_: Resource) -> dict[str, str]:
    metadata = object_.metadata
    return {kind.kind.lower(): f"{metadata.namespace}/{metadata.name}".lstrip("/")}
