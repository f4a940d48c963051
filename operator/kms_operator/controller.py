"""The controller: takes requests from the queue, reads, calls a pure reconciler, applies its plan, requeues."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from kms.clock import Clock, Entropy
from kms.cluster.client import Cluster
from kms.cluster.codec import Listing
from kms.cluster.errors import AlreadyExists, ClusterError, Conflict, NotFound, Unavailable, Undecodable
from kms.issuers import KeyStores
from kms.resources.authorities import CertificateAuthority
from kms.resources.deletions import Deletions
from kms.resources.kinds import AUTHORITIES, CREDENTIALS, NAMESPACES, POLICIES, PROFILES, SECRETS, Kind
from kms.resources.meta import Key, Resource, Unreadable, key_of
from kms.resources.orders import AuthorityType
from kms_operator.answers import AnsweredPlans, Busy
from kms_operator.apply import Applied, PlanApplier, WritesRefused, denial_of
from kms_operator.cache import Cache
from kms_operator.indexes import Unavailability
from kms_operator.kinds import OPTIONAL_KINDS, RECONCILED_KINDS, TRUST_KINDS
from kms_operator.looks.vault import VaultCredentials
from kms_operator.metrics import Metrics
from kms_operator.objects import is_managed
from kms_operator.observation import MINUTE, Look
from kms_operator.observer import Observer
from kms_operator.plan import Plan
from kms_operator.queue import WorkQueue
from kms_operator.reconcilers import (
    certificate_authority,
    certificate_policy,
    certificate_profile,
    eab_credential,
    installation,
    notifications,
    orphans,
    trust_distribution,
)
from kms_operator.settings import OperatorSettings
from kms_operator.snapshot import Read, Snapshot
from kms_operator.subordinates import SubordinateCertificates
from kms_operator.triggers import (
    INSTALLATION,
    NOTIFICATIONS_OF,
    ORPHANS,
    TRUST,
    ReconcileRequest,
    find_affected,
    find_left,
    find_waiting,
    namespace_of,
    notifications_request_for,
    orphans_request_for,
    request_for,
    requests_for_cert_manager,
    requests_for_trust,
    trust_request_for,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reconciler:
    """The pure functions of one reconciler, and the kind that it reconciles.

    None: its functions get the name in the request instead of a resource, or None if the request has none.
    """

    kind: Kind[Any] | None
    reads: Callable[[Any, Snapshot], Iterable[Read]]
    plan: Callable[..., Plan]


_OPTIONAL_PLURALS = frozenset(each.plural for each in OPTIONAL_KINDS)
RECONCILERS: Mapping[str, Reconciler] = {
    AUTHORITIES.plural: Reconciler(AUTHORITIES, certificate_authority.reads, certificate_authority.plan),
    NOTIFICATIONS_OF[PROFILES.plural]: Reconciler(PROFILES, notifications.reads, notifications.plan),
    NOTIFICATIONS_OF[AUTHORITIES.plural]: Reconciler(AUTHORITIES, notifications.reads, notifications.plan),
    TRUST: Reconciler(AUTHORITIES, trust_distribution.reads, trust_distribution.plan),
    POLICIES.plural: Reconciler(POLICIES, certificate_policy.reads, certificate_policy.plan),
    PROFILES.plural: Reconciler(PROFILES, certificate_profile.reads, certificate_profile.plan),
    CREDENTIALS.plural: Reconciler(CREDENTIALS, eab_credential.reads, eab_credential.plan),
    INSTALLATION.reconciler: Reconciler(None, installation.reads, installation.plan),
    ORPHANS.reconciler: Reconciler(None, orphans.reads, orphans.plan),
}


class Controller:
    """One for all kinds. Runs in one event loop, in which its `handle_` methods are called.

    `max_requeue_seconds`: a resource is reconciled after that time even if it is due later, because clocks may be
    adjusted meanwhile. `requeue_margin_seconds` is added to the moment at which it is due, so that every clock has
    passed it. A condition says that something is unavailable after `patience` failures in a row. A resource for which
    objects are written more than `maximum_writing` times in a row, as another program changes them, is delayed. A
    resource whose namespace waits for a key store is reconciled `busy_seconds` later. Whoever hands in `key_stores`
    closes them.
    `looks` are how to look at the issuers of external CAs, by type of the CA; it does so `look_every`.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        cluster: Cluster,
        metrics: Metrics,
        *,
        clock: Clock,
        entropy: Entropy,
        instance: str,
        workers: int = 4,
        max_requeue_seconds: float = 3600.0,
        requeue_margin_seconds: float = 1.0,
        patience: int = 2,
        maximum_writing: int = 5,
        busy_seconds: float = 1.0,
        key_stores: KeyStores | None = None,
        queue: WorkQueue[ReconcileRequest] | None = None,
        looks: Mapping[AuthorityType, Look] = MappingProxyType({}),
        look_every: timedelta = MINUTE,
    ) -> None:
        self.cache = Cache(release=settings.namespace)
        self.queue = queue if queue is not None else WorkQueue(group=namespace_of)
        self.optional_kinds_wanted = asyncio.Event()
        """Set when a resource asks for an optional kind for the first time and it was not available, and when the
        operator makes its first object of one."""
        self._settings = settings
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock
        self._entropy = entropy
        self._workers = workers
        self._max_requeue_seconds = max_requeue_seconds
        self._requeue_margin_seconds = requeue_margin_seconds
        self._deletions = Deletions()
        self._patience = patience
        self._maximum_writing = maximum_writing
        self._busy_seconds = busy_seconds
        credentials = VaultCredentials(settings, cluster, clock=clock).get
        self._plans = AnsweredPlans(
            key_stores or KeyStores.build(pkcs11_modules=settings.pkcs11_modules),
            credentials,
            SubordinateCertificates(settings, cluster, credentials, clock=clock).certify,
        )
        self._writing: dict[ReconcileRequest, int] = {}
        self._reported: dict[ReconcileRequest, tuple[str, str]] = {}
        self._observer = Observer(looks, clock=clock, on_observed=self._handle_observation, every=look_every)
        self._applier = PlanApplier(cluster, self.handle_upsert, self.handle_delete, clock, instance)
        metrics.follow_queue(lambda: len(self.queue))
        metrics.follow_renewals(self.cache.renewals_due)

    def handle_upsert(self, kind: Kind[Any], object_: Resource, *, live: bool = False) -> None:
        """Cache an object and enqueue what depends on it. A version that is cached already changes nothing."""
        if not self._is_relevant(kind, object_):
            return
        if kind.plural in _OPTIONAL_PLURALS and not self.has_optional_objects():
            self.optional_kinds_wanted.set()  # from now on they are listed more often
        known, unreadable = self.cache.get(kind, key_of(object_)), self.cache.unreadable(kind, key_of(object_))
        if self.cache.put(kind, object_, live=live):
            self._on_replaced(kind, known or unreadable, object_)
            self._reported.pop(request_for(kind, object_), None)
            self._enqueue_affected(kind, object_, held=not _is_users_change(kind, known, object_))

    def handle_unreadable(self, kind: Kind[Any], object_: Unreadable) -> None:
        """Drop an object that does not fit its model, and enqueue what depends on it and its report."""
        known = self.cache.get(kind, key_of(object_)) or self.cache.unreadable(kind, key_of(object_))
        if self._is_relevant(kind, object_) and self.cache.put_unreadable(kind, object_):
            self._on_replaced(kind, known, object_)
            self._enqueue_affected(kind, object_)

    def handle_delete(self, kind: Kind[Any], object_: Resource | Unreadable) -> None:
        """Drop a deleted object and enqueue what depends on it."""
        if self.cache.remove(kind, object_):
            self._on_deleted(kind, object_)

    def handle_list(self, kind: Kind[Any], listing: Listing[Any], *, since: str = "") -> None:
        """Cache a complete list: objects that are not in it were deleted. For `since`, see Cache.replace."""
        relevant = [each for each in listing.items if self._is_relevant(kind, each)]
        changed, deleted = self.cache.replace(
            kind, relevant, listing.resource_version, unreadable=listing.unreadable, since=since
        )
        for unreadable in listing.unreadable:
            self.handle_unreadable(kind, unreadable)
        for each in changed:
            self._reported.pop(request_for(kind, each), None)
        for each in sorted(changed, key=_age):
            self._enqueue_affected(kind, each)
        for each in deleted:
            self._on_deleted(kind, each)

    def handle_availability(self, kind: Kind[Any], unavailability: Unavailability | None) -> bool:
        """Record if an optional kind is available (None), enqueue what asks for it. Returns False if that was known."""
        if not self.cache.set_unavailable(kind, unavailability):
            return False
        requests = requests_for_trust(self.cache) if kind in TRUST_KINDS else requests_for_cert_manager(self.cache)
        for each in requests:
            self.queue.add(each)
        return True

    def needs_trust_kinds(self) -> bool:
        """Whether a root is published, or is to be."""
        wanted = any(each.spec.trust is not None for each in self.cache.all(AUTHORITIES).values())
        return wanted or any(self.cache.all(kind) for kind in TRUST_KINDS)

    def has_optional_objects(self) -> bool:
        """Whether the operator has objects of optional kinds."""
        return any(self.cache.all(kind) for kind in OPTIONAL_KINDS)

    def enqueue_all(self) -> None:
        """Enqueue everything, the oldest resources first, and also what failed: that may have passed."""
        requests = [INSTALLATION]
        for kind in (AUTHORITIES, POLICIES, PROFILES, CREDENTIALS):
            requests += (request_for(kind, each) for each in sorted(self.cache.all(kind).values(), key=_age))
        requests += map(trust_request_for, self.cache.all(AUTHORITIES).values())
        for kind in (PROFILES, AUTHORITIES):
            requests += (
                notifications_request_for(kind, each)
                for each in self.cache.all(kind).values()
                if each.spec.notifications is not None
            )
        for each in (*requests, ORPHANS):
            self.queue.add(each, held=False)

    async def run(self) -> None:
        """Reconcile until cancelled. Several workers wait for API calls at the same time."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._observer.run())
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            async with self.queue.take() as request:
                await self._process(request)

    async def _process(self, request: ReconcileRequest) -> None:
        began = time.perf_counter()
        result = "done"
        try:
            applied = await self._reconcile(request)
        except (Conflict, AlreadyExists) as error:
            result = "conflict"
            logger.debug("reconciling again after a conflict", extra={"request": str(request), "error": str(error)})
            # What has changed meanwhile was read, and is an event that makes the second attempt succeed.
            self.queue.retry(request, held=self.queue.failures(request) >= self._patience)
        except Busy:
            result = "busy"
            self.queue.add(request, delay=self._busy_seconds)
        except Unavailable as error:
            result = "retried"
            delay = self.queue.retry(request, after=error.retry_after)
            logger.warning("API server not available", extra=_log_retry(request, error, delay))
        except WritesRefused as error:
            result = "refused"
            logger.warning("writes refused", extra=_log_retry(request, error, self.queue.retry(request)))
        except ClusterError as error:
            if isinstance(error, NotFound) and not self._exists(request):
                result = "done"  # the resource was deleted meanwhile
                self.queue.reset_backoff(request)
                return
            result = "failed"
            logger.error("reconciliation refused", extra=_log_retry(request, error, self.queue.retry(request)))
        except Exception:
            # A bug in one reconciler must not stop the others; the log has the traceback, the metrics count it.
            result = "failed"
            logger.exception("reconciliation failed", extra=_log_retry(request, None, self.queue.retry(request)))
        else:
            self._succeed(request, applied)
        finally:
            self._metrics.reconciles.labels(request.reconciler, result).inc()
            self._metrics.seconds.labels(request.reconciler).observe(time.perf_counter() - began)

    def _succeed(self, request: ReconcileRequest, applied: Applied) -> None:
        """Reconcile again when it is due, and later where each reconciliation writes something.

        What the operator writes is an event that makes it look again. If it then writes again, time after time, another
        program changes what it writes, such as a webhook.
        """
        writing = self._writing.pop(request, 0) + 1 if applied.writes else 0
        if writing:
            self._writing[request] = writing
        if writing > self._maximum_writing:
            delay = self.queue.retry(request)
            message = "another program changes what the operator writes"
            logger.warning(message, extra=_log_retry(request, None, delay))
            return
        self.queue.reset_backoff(request)
        self._requeue(request, applied.requeue_at)

    def _exists(self, request: ReconcileRequest) -> bool:
        kind = RECONCILERS[request.reconciler].kind
        return kind is None or self.cache.get(kind, (request.namespace, request.name)) is not None

    def _requeue(self, request: ReconcileRequest, requeue_at: datetime | None) -> None:
        if requeue_at is not None:
            margin = self._requeue_margin_seconds
            seconds = (requeue_at - self._clock()).total_seconds() + margin
            self.queue.add(request, delay=min(max(seconds, margin), self._max_requeue_seconds))

    async def _reconcile(self, request: ReconcileRequest) -> Applied:
        reconciler = RECONCILERS[request.reconciler]
        kind, resource, subject = reconciler.kind, None, request.name or None
        if kind is not None:
            key = request.namespace, request.name
            resource = self.cache.get(kind, key)
            if resource is None and (unreadable := self.cache.unreadable(kind, key)) is not None:
                await self._report_unreadable(request, kind, unreadable)
            if resource is None or self._is_ending(resource):
                return Applied(None, 0)
            subject = resource
        snapshot = Snapshot(self._settings, self.cache)
        persistent = self.queue.failures(request) >= self._patience
        live, failures = await self._read_live(reconciler.reads(subject, snapshot), persistent=persistent)
        denials = {key: denial_of(error) for key, error in failures.items()}
        observations = self._observer.observations
        snapshot = Snapshot(self._settings, self.cache, live, self._deletions, denials, observations)
        plan = await self._plans.plan(
            reconciler.plan,
            subject,
            snapshot,
            now=self._clock(),
            entropy=self._entropy,
            group=namespace_of(request),
        )
        if plan.check_optional_kinds:
            self.optional_kinds_wanted.set()
        if plan.look and isinstance(resource, CertificateAuthority):
            self._observer.add(resource)
        try:
            with self.cache.announced(_new_secrets(plan)):
                applied = await self._applier.apply(plan, kind=kind, resource=resource, persistent=persistent)
        except (Conflict, AlreadyExists, NotFound):
            # An object is not as the cache has it: read all that the plan is about before the next attempt.
            if kind is not None and resource is not None:
                await self._refresh_resource(kind, resource)
            for manifest in (*plan.apply, *plan.delete):
                await self._refresh(manifest.kind, key_of(manifest.object))
            raise
        for failure in failures.values():
            raise failure
        return applied

    def _is_ending(self, resource: Resource) -> bool:
        """Whether the resource is being deleted, or its namespace is: the API server creates nothing there any more."""
        namespace = self.cache.get(NAMESPACES, ("", resource.metadata.namespace))
        ending = (resource, *([namespace] if namespace is not None else []))
        return any(each.metadata.deletion_timestamp is not None for each in ending)

    async def _report_unreadable(self, request: ReconcileRequest, kind: Kind[Any], unreadable: Unreadable) -> None:
        """Say once on the object what is wrong with it, whatever versions of it follow."""
        said = unreadable.metadata.uid, str(unreadable)
        if self._reported.get(request) != said:
            await self._applier.report_unreadable(kind, unreadable)
            self._reported[request] = said

    async def _read_live(
        self, reads: Iterable[Read], *, persistent: bool
    ) -> tuple[dict[tuple[str, Key], Any | None], dict[tuple[str, Key], ClusterError]]:
        """Read the objects that are not cached, or that must be read in any case.

        The second value is why optional ones could not be read. Raises ClusterError for any other, and while it is not
        `persistent` that the API server is not available.
        """
        wanted = [each for each in reads if each.live or self.cache.get(each.kind, each.key) is None]
        found: list[tuple[Read, Any | None]] = []
        failures: dict[tuple[str, Key], ClusterError] = {}
        for each in wanted:
            try:
                found.append((each, await self._get(each.kind, each.key)))
            except ClusterError as error:
                if not each.optional or (isinstance(error, Unavailable) and not persistent and not each.live):
                    raise
                failures[each.kind.plural, each.key] = error
        # What was cached in the meantime is newer than what was read.
        live = {
            (each.kind.plural, each.key): object_
            for each, object_ in found
            if each.live or self.cache.get(each.kind, each.key) is None
        }
        return live, failures

    async def _refresh_resource(self, kind: Kind[Any], resource: Resource) -> None:
        if (found := await self._get(kind, key_of(resource))) is not None:
            self.handle_upsert(kind, found, live=True)
        elif self.cache.unreadable(kind, key_of(resource)) is None:
            self.handle_delete(kind, resource)

    async def _refresh(self, kind: Kind[Any], key: Key) -> None:
        found: Resource | None = await self._get(kind, key)
        known = self.cache.get(kind, key)
        if found is None:
            if known is not None:
                self.handle_delete(kind, known)
        elif is_managed(found) or key[0] == self._settings.namespace or kind is CREDENTIALS:
            self.handle_upsert(kind, found, live=True)
        elif known is not None:
            self.handle_delete(kind, found)  # it has lost the operator's label: it is not watched, so not cached

    async def _get(self, kind: Kind[Any], key: Key) -> Any | None:
        """The object as it is now; None if it does not exist, or is one of our kinds and cannot be read.

        Raises ClusterError, also if another object cannot be read: a Secret that exists must not be made anew.
        """
        try:
            return await self._cluster.get(kind, *key)
        except NotFound:
            return None
        except Undecodable as error:
            if kind not in RECONCILED_KINDS or error.unreadable is None:
                raise
            self.handle_unreadable(kind, error.unreadable)
            return None

    def _is_relevant(self, kind: Kind[Any], object_: Resource | Unreadable) -> bool:
        return not kind.namespaced or kind is SECRETS or self._settings.watches(object_.metadata.namespace)

    def _on_replaced(
        self, kind: Kind[Any], known: Resource | Unreadable | None, object_: Resource | Unreadable
    ) -> None:
        """Look after what the known object has left if `object_` is another one of the same name.

        It was deleted and made again at once: kopf delivers the two events in any order, and a list tells only one.
        """
        if known is not None and known.metadata.uid != object_.metadata.uid:
            self._on_deleted(kind, known)

    def _on_deleted(self, kind: Kind[Any], deleted: Resource | Unreadable) -> None:
        self._reported.pop(request_for(kind, deleted), None)
        self._enqueue_affected(kind, deleted)
        for each in find_waiting(deleted, self.cache):
            self.queue.add(each)
        if kind is AUTHORITIES:
            self._observer.forget(deleted.metadata.uid)
        if kind in {AUTHORITIES, CREDENTIALS, PROFILES}:
            self.queue.add(orphans_request_for(deleted))
            for request in find_left(kind, deleted, self.cache, release=self._settings.namespace):
                self._deletions.note((kind.plural, key_of(deleted)), self._clock())
                self.queue.add(request)

    def _handle_observation(self, authority: Key) -> None:
        self.queue.add(ReconcileRequest(AUTHORITIES.plural, *authority), held=False)

    def _enqueue_affected(self, kind: Kind[Any], changed: Resource | Unreadable, *, held: bool = True) -> None:
        for request, delay in find_affected(kind, changed, self.cache, release=self._settings.namespace):
            self.queue.add(request, delay=delay, held=held)


def _is_users_change(kind: Kind[Any], known: Resource | None, object_: Resource) -> bool:
    """Whether a user has made a resource or changed its spec. The operator changes only its status."""
    if kind not in RECONCILED_KINDS or is_managed(object_):
        return False
    before, after = known.metadata if known is not None else None, object_.metadata
    return before is None or (before.uid, before.generation) != (after.uid, after.generation)


def _new_secrets(plan: Plan) -> Iterator[Any]:
    return (each.object for each in plan.apply if each.kind is SECRETS and not each.object.metadata.resource_version)


def _age(resource: Resource) -> tuple[float, str]:
    created = resource.metadata.creation_timestamp
    return (created.timestamp() if created else 0.0, resource.metadata.uid)


def _log_retry(request: ReconcileRequest, error: ClusterError | None, delay: float) -> dict[str, Any]:
    return {
        "request": str(request),
        "error": str(error) if error is not None else None,
        "retry_in_seconds": round(delay, 1),
    }
