"""Carries outcomes out: the one place of the operator that writes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kms.clock import Clock
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError, NotFound
from kms.resources.core import Secret
from kms.resources.kinds import SECRETS, Kind
from kms.resources.meta import Resource
from kms_operator.outcomes import Notice, Outcome

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

    async def carry_out(self, outcome: Outcome, *, kind: Kind[Any] | None, resource: Resource | None) -> None:
        """Delete, write, state, tell: in this order, so that what is told is true.

        `kind` and `resource` are what the outcome is about; None for what belongs to no resource. Raises Conflict or
        AlreadyExists where something is not as it was seen, and whatever else the API server answers.
        """
        for secret in outcome.delete:
            await self.delete(secret)
        for secret in outcome.apply:
            await self._write(secret)
        if kind is not None and resource is not None:
            await self._state(kind, resource, outcome)
        for notice in outcome.notices:
            await self._tell(notice, kind=kind, resource=resource)

    async def delete(self, secret: Secret) -> None:
        """Delete the Secret as it was seen; that it has gone already is as good."""
        metadata = secret.metadata
        with suppress(NotFound):
            await self.cluster.delete(
                SECRETS,
                metadata.namespace,
                metadata.name,
                uid=metadata.uid,
                resource_version=metadata.resource_version,
            )
        self.forget(SECRETS, secret)
        logger.info("secret deleted", extra={"secret": f"{metadata.namespace}/{metadata.name}"})

    async def _write(self, secret: Secret) -> None:
        if secret.metadata.resource_version:
            written = await self.cluster.apply(SECRETS, secret, manager=FIELD_MANAGER)
        else:
            written = await self.cluster.create(SECRETS, secret)
        self.remember(SECRETS, written)
        logger.info("secret written", extra={"secret": f"{written.metadata.namespace}/{written.metadata.name}"})

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

    async def _tell(self, notice: Notice, *, kind: Kind[Any] | None, resource: Resource | None) -> None:
        """Log the notice, and post it as an Event; an Event that is lost is no reason to reconcile again."""
        about = f"{resource.metadata.namespace}/{resource.metadata.name}" if resource is not None else None
        level = logging.INFO if notice.type == "Normal" else logging.WARNING
        logger.log(
            level,
            notice.message,
            extra={"reason": notice.reason, "kind": kind.kind if kind else None, "resource": about},
        )
        if kind is None or resource is None:
            return
        try:
            await self.cluster.create_event(
                kind,
                resource,
                type_=notice.type,
                reason=notice.reason,
                action="Reconcile",
                note=notice.message,
                controller=CONTROLLER,
                instance=self.instance,
                time=self.clock(),
            )
        except ClusterError as error:
            logger.warning("event not posted", extra={"reason": notice.reason, "error": str(error)})
