"""Tells people what the API server refuses: a quota, an admission policy, a webhook or a missing permission.

Clients get a 503 until a person lifts the refusal. The log and a metric tell each of them. An Event tells the owners of
the CertificateProfile, who see neither; it is posted in the background, and not again for the same kind and verb for a
while: failing clients must not fill etcd.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from acme_server.metrics import Metrics
from acme_server.state.store import Verb
from kms.clock import Clock
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import PROFILES, Kind
from kms.resources.meta import GROUP, Key, Resource
from kms.resources.orders import ACMEOrder
from kms.resources.profiles import CertificateProfile

logger = logging.getLogger(__name__)

CONTROLLER = f"{GROUP}/server"
REASON = "WriteRefused"


class _Subject(NamedTuple):
    """What an Event is about."""

    profile: Key
    kind: str
    verb: Verb


class Refusals:
    """Reports refusals.

    `find_profile` finds a profile by its key. The same Event is posted once in `again`; `remembered` of them are known,
    and `queued` wait to be posted.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        find_profile: Callable[[str, str], CertificateProfile | None],
        instance: str,
        clock: Clock,
        metrics: Metrics,
        again: timedelta = timedelta(minutes=5),
        remembered: int = 1_000,
        queued: int = 100,
    ) -> None:
        self._cluster = cluster
        self._find_profile = find_profile
        self._instance = instance
        self._clock = clock
        self._metrics = metrics
        self._again = again
        self._remembered = remembered
        self._posted: OrderedDict[_Subject, datetime] = OrderedDict()
        self._queue: asyncio.Queue[tuple[CertificateProfile, Verb, str]] = asyncio.Queue(queued)

    def report(self, kind: Kind[Any], verb: Verb, resource: Resource | None, error: ClusterError) -> None:
        """Log and count the refusal, and let an Event follow if it was about a profile's account or order."""
        name = f"{resource.metadata.namespace}/{resource.metadata.name}" if resource is not None else None
        logger.warning(
            "the Kubernetes API refused a request",
            extra={"verb": verb, "kind": kind.plural, "object": name, "error": str(error)},
        )
        self._metrics.count_api_refusal(kind.plural, verb)
        profile = self._profile_of(resource)
        if profile is None or not self._is_due(_Subject(_key(profile), kind.plural, verb)):
            return
        article = "an" if kind.kind[0] in "AEIO" else "a"
        try:
            self._queue.put_nowait((profile, verb, f"The API server refused to {verb} {article} {kind.kind}: {error}"))
        except asyncio.QueueFull:
            logger.warning("Event not posted: too many are waiting", extra={"profile": "/".join(_key(profile))})

    def _profile_of(self, resource: Resource | None) -> CertificateProfile | None:
        if not isinstance(resource, ACMEAccount | ACMEOrder):
            return None
        return self._find_profile(resource.metadata.namespace, resource.spec.profile_ref.name)

    def _is_due(self, subject: _Subject) -> bool:
        now, last = self._clock(), self._posted.get(subject)
        if last is not None and now - last < self._again:
            return False
        self._posted[subject] = now
        self._posted.move_to_end(subject)
        while len(self._posted) > self._remembered:
            self._posted.popitem(last=False)
        return True

    async def run(self) -> None:
        """Post Events; never returns."""
        while True:
            profile, verb, note = await self._queue.get()
            try:
                await self._cluster.create_event(
                    PROFILES,
                    profile,
                    type_="Warning",
                    reason=REASON,
                    action=verb.capitalize(),
                    note=note,
                    controller=CONTROLLER,
                    instance=self._instance,
                    time=self._clock(),
                )
            except ClusterError as error:
                logger.warning("Event cannot be posted", extra={"reason": REASON, "error": str(error)})
            finally:
                self._queue.task_done()

    async def idle(self) -> None:
        """Wait until no Event is waiting."""
        await self._queue.join()


def _key(profile: CertificateProfile) -> Key:
    return profile.metadata.namespace, profile.metadata.name
