"""One of several replicas acts: whoever holds a Lease (coordination.k8s.io/v1), as Kubernetes's own controllers do it.

The holder writes to the Lease every two seconds. The others watch that it changes, by their own clocks: a Lease that
has not changed for fifteen seconds is free, whatever times stand in it. A holder that could not write for ten seconds
stops acting, five seconds before anybody else begins. A Lease does not fence: what a replica has sent may arrive after
it has lost, so whatever the work writes is guarded by resourceVersion all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from kms.clock import Clock, system_clock
from kms.cluster.client import Cluster
from kms.cluster.errors import AlreadyExists, ClusterError, Conflict, NotFound
from kms.resources.core import Lease, LeaseSpec
from kms.resources.kinds import LEASES
from kms.resources.meta import ObjectMeta

logger = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]
"""What the holder does until it is cancelled."""


@dataclass(frozen=True, slots=True)
class Terms:
    """In seconds, how long a Lease holds.

    After how long without a change it is free, after how long without success its holder gives up, and how often it is
    written and looked at.
    """

    duration: float = 15.0
    renew_within: float = 10.0
    every: float = 2.0


def taken(lease: Lease, *, identity: str, terms: Terms, now: datetime) -> Lease:
    """The Lease as `identity` holds it from now on: renewed where it was its own already, else acquired."""
    spec = lease.spec
    time = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if spec.holder_identity == identity:
        return replace(lease, spec=replace(spec, renew_time=time))
    return replace(
        lease,
        spec=LeaseSpec(
            holder_identity=identity,
            lease_duration_seconds=round(terms.duration),
            acquire_time=time,
            renew_time=time,
            lease_transitions=(spec.lease_transitions or 0) + 1 if lease.metadata.resource_version else 0,
        ),
    )


def released(lease: Lease) -> Lease:
    """The Lease as nobody holds it: the next replica need not wait."""
    return replace(lease, spec=replace(lease.spec, holder_identity=""))


class LeaderElection:
    """A candidate for one Lease.

    `identity` tells it from all others, and is best the same after a restart: then it need not wait for its own Lease.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Clock = system_clock,
        terms: Terms | None = None,
    ) -> None:
        self._cluster = cluster
        self._key = namespace, name
        self._identity = identity
        self._clock = clock
        self._terms = terms or Terms()
        self._loop = asyncio.get_running_loop()
        self._seen = ""
        self._changed = float("-inf")
        self.leading = False
        """Whether this candidate holds the Lease and acts."""
        self.looked = False
        """Whether the Lease has been seen, so that it is known who holds it."""

    async def run(self, work: Work) -> None:
        """Do `work` whenever this candidate holds the Lease, until cancelled or `work` ends by itself; then let go.

        Raises what `work` raises.
        """
        while True:
            lease = await self._acquired()
            logger.info("elected", extra={"lease": self._key[1], "identity": self._identity})
            task = asyncio.create_task(work())
            self.leading = True
            try:
                await self._keep(lease, task)
            finally:
                self.leading = False
                task.cancel()
                await asyncio.wait((task,))
                await self._let_go()
            if not task.cancelled():
                task.result()
                return
            logger.warning("no longer elected", extra={"lease": self._key[1], "identity": self._identity})

    async def _acquired(self) -> Lease:
        """Wait until the Lease is ours."""
        while True:
            try:
                held = await self._attempt()
            except (Conflict, AlreadyExists):
                held = None  # somebody else was faster
            except ClusterError as error:
                held = None
                logger.warning("lease cannot be acquired", extra={"lease": self._key[1], "error": str(error)})
            if held is not None:
                return held
            await asyncio.sleep(self._terms.every)

    async def _attempt(self) -> Lease | None:
        lease = await self._read()
        if lease is None:
            fresh = Lease(metadata=ObjectMeta(namespace=self._key[0], name=self._key[1]))
            return await self._cluster.create(LEASES, self._mine(fresh))
        self.looked = True
        if lease.metadata.resource_version != self._seen:
            self._seen, self._changed = lease.metadata.resource_version, self._loop.time()
        idle = self._loop.time() - self._changed >= self._terms.duration
        free = idle or lease.spec.holder_identity in {"", self._identity}
        return await self._cluster.replace(LEASES, self._mine(lease)) if free else None

    async def _keep(self, lease: Lease, task: asyncio.Task[None]) -> None:
        """Renew the Lease until the work ends or the Lease is lost."""
        renewed = self._loop.time()
        while True:
            await asyncio.wait((task,), timeout=self._terms.every)
            if task.done():
                return
            try:
                async with asyncio.timeout_at(renewed + self._terms.renew_within):
                    lease = await self._cluster.replace(LEASES, self._mine(lease))
                renewed = self._loop.time()
            except (Conflict, NotFound):
                current = await self._current()
                if current is None or current.spec.holder_identity != self._identity:
                    return
                lease = current
            except (ClusterError, TimeoutError) as error:
                logger.warning("lease cannot be renewed", extra={"lease": self._key[1], "error": str(error)})
            if self._loop.time() - renewed >= self._terms.renew_within:
                return

    async def _let_go(self) -> None:
        """Release the Lease if it still is ours: at most a moment is spent on that."""
        try:
            async with asyncio.timeout(self._terms.every):
                lease = await self._read()
                if lease is not None and lease.spec.holder_identity == self._identity:
                    await self._cluster.replace(LEASES, released(lease))
        except (ClusterError, TimeoutError) as error:
            logger.info("lease is left to expire", extra={"lease": self._key[1], "error": str(error)})

    async def _current(self) -> Lease | None:
        try:
            return await self._read()
        except ClusterError:
            return None

    async def _read(self) -> Lease | None:
        try:
            return await self._cluster.get(LEASES, *self._key)
        except NotFound:
            return None

    def _mine(self, lease: Lease) -> Lease:
        return taken(lease, identity=self._identity, terms=self._terms, now=self._clock())
