"""The loop: a key from the queue, a look at the cluster, a pure decision, its execution, and when to look again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kms.clock import Clock, Entropy
from kms.cluster.client import Cluster
from kms.cluster.errors import AlreadyExists, ClusterError, Conflict, NotFound, Unavailable
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, POLICIES, PROFILES, SECRETS, Kind
from kms.resources.meta import Resource, condition, key_of
from kms_operator.apply import Applier
from kms_operator.cache import TRUST_KINDS, Cache
from kms_operator.metrics import Metrics
from kms_operator.plan import Outcome
from kms_operator.queue import WorkQueue
from kms_operator.reconcilers import (
    certificate_authority,
    certificate_policy,
    certificate_profile,
    certmanager_issuers,
    eab_credential,
    installation,
    trust_distribution,
)
from kms_operator.reconcilers.orphans import OrphanedObject, strays
from kms_operator.settings import OperatorSettings
from kms_operator.snapshot import Key, Snapshot, Unavailability, is_managed
from kms_operator.triggers import (
    INSTALLATION,
    ORPHANS,
    TRUST,
    ReconcileRequest,
    affected,
    issuing,
    publishing,
    request_for,
    trust_request_for,
)

WORKERS = 4
LONGEST_WAIT = 3600.0
"""Seconds after which a resource is looked at even if it is due much later: clocks may be set in the meantime."""
MARGIN = 1.0
"""Seconds that a resource is looked at after the moment it is due, so that the moment has passed on every clock."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reconciler:
    """How one kind is reconciled, and which Secrets have to be read live where they are not known."""

    kind: Kind[Any]
    reconcile: Callable[..., Outcome]
    secrets: Callable[[Any, OperatorSettings], Iterable[Key]]
    lookups: Callable[[Any, Snapshot], Iterable[tuple[Kind[Any], Key]]] = lambda _resource, _seen: ()
    """What else has to be read live where it is not known; what that is depends on what is known."""


RECONCILERS: Mapping[str, Reconciler] = {
    each.kind.plural: each
    for each in (
        Reconciler(AUTHORITIES, certificate_authority.reconcile, certificate_authority.secrets),
        Reconciler(POLICIES, certificate_policy.reconcile, lambda _policy, _settings: ()),
        Reconciler(PROFILES, certificate_profile.reconcile, certificate_profile.secrets, certmanager_issuers.lookups),
        Reconciler(CREDENTIALS, eab_credential.reconcile, eab_credential.secrets),
    )
}


class Controller:
    """One for all kinds. Lives in one event loop; `remember` and `forget` are called there."""

    def __init__(
        self,
        settings: OperatorSettings,
        cluster: Cluster,
        metrics: Metrics,
        *,
        clock: Clock,
        entropy: Entropy,
        instance: str,
    ) -> None:
        self.cache = Cache(settings)
        self.queue: WorkQueue[ReconcileRequest] = WorkQueue()
        self.asked = asyncio.Event()
        """Set when somebody asks for the first time for what could not be had when it was looked for."""
        self._settings = settings
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock
        self._entropy = entropy
        self._applier = Applier(cluster, self.remember, self.forget, clock, instance)
        metrics.follow_queue(lambda: len(self.queue))

    def remember(self, kind: Kind[Any], object_: Resource, *, live: bool = False) -> None:
        """An object is there: whatever depends on it is looked at. What has been known already changes nothing."""
        if self._concerns_us(kind, object_) and self.cache.put(kind, object_, live=live):
            self._enqueue(affected(kind, object_, self.cache))

    def forget(self, kind: Kind[Any], object_: Resource) -> None:
        """An object is gone."""
        if self.cache.forget(kind, object_):
            self._on_owner_deleted(kind, object_)

    def handle_list(self, kind: Kind[Any], objects: Iterable[Resource], resource_version: str) -> None:
        """All objects of a kind, complete: what is not among them is gone."""
        wanted = [each for each in objects if self._concerns_us(kind, each)]
        changed, gone = self.cache.replace(kind, wanted, resource_version)
        for each in sorted(changed, key=_age):
            self._enqueue(affected(kind, each, self.cache))
        for each in gone:
            self._on_owner_deleted(kind, each)

    def obstruct(self, kind: Kind[Any], unavailability: Unavailability | None) -> bool:
        """A kind of others cannot be had, or (None) can be had: whoever asks for it says so. False: it was known."""
        if not self.cache.obstruct(kind, unavailability):
            return False
        self._enqueue(publishing(self.cache) if kind in TRUST_KINDS else issuing(self.cache))
        return True

    def publishes(self) -> bool:
        """Whether a root is published, or is to be."""
        asked = any(each.spec.trust is not None for each in self.cache.all(AUTHORITIES).values())
        return asked or any(self.cache.all(kind) for kind in TRUST_KINDS)

    def enqueue_all(self) -> None:
        """Have all that is reconciled looked at, the oldest first."""
        self.queue.add(INSTALLATION)
        for each in RECONCILERS.values():
            for resource in sorted(self.cache.all(each.kind).values(), key=_age):
                self.queue.add(request_for(each.kind, resource))
        for authority in self.cache.all(AUTHORITIES).values():
            self.queue.add(trust_request_for(authority))
        self.queue.add(ORPHANS)

    async def run(self) -> None:
        """Reconcile until cancelled, with as many workers as it takes to wait for several API calls at once."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        """Process keys; a reconciliation that is cancelled is done again by whoever comes next."""
        while True:
            async with self.queue.take() as target:
                await self._process(target)

    async def _process(self, target: ReconcileRequest) -> None:
        began = time.perf_counter()
        result = "done"
        try:
            again = await self._reconcile(target)
        except (Conflict, AlreadyExists) as error:
            result = "conflict"
            logger.debug("reconciling again", extra={"target": "/".join(target), "error": str(error)})
            self.queue.retry(target)
        except Unavailable as error:
            result = "retried"
            delay = self.queue.retry(target, after=error.retry_after)
            logger.warning("API server not available", extra=_tried(target, error, delay))
        except ClusterError as error:
            if isinstance(error, NotFound) and not self._is_known(target):
                result = "done"  # deleted while we looked
                return
            result = "failed"
            logger.error("reconciliation refused", extra=_tried(target, error, self.queue.retry(target)))
        except Exception:
            # A bug in one reconciler must not stop the others; it is in the log with its traceback, and in the metrics.
            result = "failed"
            logger.exception("reconciliation failed", extra=_tried(target, None, self.queue.retry(target)))
        else:
            self.queue.succeeded(target)
            self._schedule(target, again)
        finally:
            self._metrics.reconciles.labels(target.plural, result).inc()
            self._metrics.seconds.labels(target.plural).observe(time.perf_counter() - began)

    def _is_known(self, target: ReconcileRequest) -> bool:
        """Whether there still is something to reconcile."""
        reconciler = RECONCILERS.get(AUTHORITIES.plural if target.plural == TRUST else target.plural)
        return reconciler is None or self.cache.get(reconciler.kind, (target.namespace, target.name)) is not None

    def _schedule(self, target: ReconcileRequest, again: datetime | None) -> None:
        if again is not None:
            seconds = (again - self._clock()).total_seconds() + MARGIN
            self.queue.add(target, delay=min(max(seconds, MARGIN), LONGEST_WAIT))

    async def _reconcile(self, target: ReconcileRequest) -> datetime | None:
        if target == ORPHANS:
            await self._sweep()
            return None
        if target == INSTALLATION:
            return await self._install()
        if target.plural == TRUST:
            return await self._publish(target)
        reconciler = RECONCILERS[target.plural]
        resource = self.cache.get(reconciler.kind, (target.namespace, target.name))
        if resource is None or resource.metadata.deletion_timestamp is not None:
            return None
        snapshot = await self._observe(reconciler.secrets(resource, self._settings))
        snapshot = snapshot.with_live(await self._unknown(reconciler.lookups(resource, snapshot)))
        outcome = reconciler.reconcile(resource, snapshot, now=self._clock(), entropy=self._entropy)
        try:
            await self._applier.apply(outcome, kind=reconciler.kind, resource=resource)
        except (Conflict, AlreadyExists, NotFound):
            await self._look_again(reconciler.kind, resource, outcome)
            raise
        return outcome.again

    async def _publish(self, target: ReconcileRequest) -> datetime | None:
        """Publish a root where it can be, and state where that is; the rest of the CA is another target."""
        authority = self.cache.get(AUTHORITIES, (target.namespace, target.name))
        if authority is None or authority.metadata.deletion_timestamp is not None:
            return None
        snapshot = self.cache.snapshot_of({})
        snapshot = snapshot.with_live(await self._unknown(trust_distribution.lookups(authority, snapshot)))
        plan = trust_distribution.plan(authority, snapshot, now=self._clock())
        if plan.obstructed and condition(authority.status.conditions, certificate_authority.TRUST_PUBLISHED) is None:
            self.asked.set()
        doubtful = Outcome(objects=plan.objects, withdraw=plan.withdraw)
        try:
            refusals = await self._applier.attempt(plan.withdraw, plan.objects)
            doubtful = Outcome()
            outcome = trust_distribution.conclude(authority, plan, refusals, now=self._clock())
            await self._applier.apply(outcome, kind=AUTHORITIES, resource=authority)
        except (Conflict, AlreadyExists, NotFound):
            await self._look_again(AUTHORITIES, authority, doubtful)
            raise
        return outcome.again

    async def _install(self) -> datetime | None:
        snapshot = await self._observe(installation.secrets(self._settings))
        outcome = installation.reconcile(snapshot, now=self._clock(), entropy=self._entropy)
        await self._applier.apply(outcome, kind=None, resource=None)
        return outcome.again

    async def _sweep(self) -> None:
        for stray in strays(await self._observe(())):
            if not await self._exists(stray):
                await self._applier.delete(stray.manifest.kind, stray.manifest.object)

    async def _exists(self, stray: OrphanedObject) -> bool:
        """Ask the API server itself whether the owner is there."""
        try:
            owner = await self._cluster.get(stray.kind, *stray.owner)
        except NotFound:
            return False
        return bool(owner.metadata.uid == stray.uid)

    async def _observe(self, secrets: Iterable[Key]) -> Snapshot:
        """The cluster as known, and Secrets as they are now where they are not watched or seem not to exist."""
        live = {key: await self._read(SECRETS, key) for key in secrets if self.cache.get(SECRETS, key) is None}
        return self.cache.snapshot_of(live)

    async def _unknown(self, lookups: Iterable[tuple[Kind[Any], Key]]) -> list[Resource]:
        """Those of the objects that are not remembered, and are there."""
        read = [await self._read(kind, key) for kind, key in lookups if self.cache.get(kind, key) is None]
        return [each for each in read if each is not None]

    async def _look_again(self, kind: Kind[Any], resource: Resource, outcome: Outcome) -> None:
        """Something is not as we believed: read what the outcome was about, so that the next try knows better."""
        key = (resource.metadata.namespace, resource.metadata.name)
        if (found := await self._read(kind, key)) is None:
            self.forget(kind, resource)
        else:
            self.remember(kind, found, live=True)
        for secret in (*outcome.apply, *outcome.delete):
            await self._look_at(SECRETS, key_of(secret))
        for manifest in (*outcome.objects, *outcome.withdraw):
            await self._look_at(manifest.kind, key_of(manifest.object))

    async def _look_at(self, kind: Kind[Any], key: Key) -> None:
        found: Resource | None = await self._read(kind, key)
        known = self.cache.get(kind, key)
        if found is None:
            if known is not None:
                self.forget(kind, known)
        elif is_managed(found) or key[0] == self._settings.namespace or kind is CREDENTIALS:
            # What users have made is not watched; it is read anew each time instead of being remembered.
            self.remember(kind, found, live=True)
        elif known is not None:
            self.forget(kind, found)  # it has lost our label

    async def _read(self, kind: Kind[Any], key: Key) -> Any | None:
        try:
            return await self._cluster.get(kind, *key)
        except NotFound:
            return None

    def _concerns_us(self, kind: Kind[Any], object_: Resource) -> bool:
        return not kind.namespaced or kind is SECRETS or self._settings.watches(object_.metadata.namespace)

    def _on_owner_deleted(self, kind: Kind[Any], gone: Resource) -> None:
        self._enqueue(affected(kind, gone, self.cache))
        if kind in {AUTHORITIES, CREDENTIALS, PROFILES}:
            self.queue.add(ORPHANS)

    def _enqueue(self, targets: Iterable[tuple[ReconcileRequest, float]]) -> None:
        for target, delay in targets:
            self.queue.add(target, delay=delay)


def _age(resource: Resource) -> tuple[float, str]:
    created = resource.metadata.creation_timestamp
    return (created.timestamp() if created else 0.0, resource.metadata.uid)


def _tried(target: ReconcileRequest, error: ClusterError | None, delay: float) -> dict[str, Any]:
    return {
        "target": "/".join(filter(None, target)),
        "error": str(error) if error is not None else None,
        "again_in_seconds": round(delay, 1),
    }
