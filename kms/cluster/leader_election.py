"""Leader election: of several replicas the holder of a Lease (coordination.k8s.io/v1) acts, as in Kubernetes itself.

The holder renews the Lease every two seconds. The others observe by their own clocks whether it changes: a Lease that
has not changed for fifteen seconds is free, regardless of the times in it. A holder that could not renew for ten
seconds stops acting, five seconds before another replica begins. A Lease does not fence: a request may arrive after its
sender has lost the Lease, so every write is guarded by resourceVersion as well.
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
"""What the holder runs until it is cancelled."""


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """In seconds: `duration` without a change frees a Lease, a holder gives up after `renew_within` without success.

    The holder renews the Lease, and others read it, `every` so often.
    """

    duration: float = 15.0
    renew_within: float = 10.0
    every: float = 2.0


def claim(lease: Lease, *, identity: str, timing: LeaseTiming, now: datetime) -> Lease:
    """The Lease with `identity` as its holder: renewed where it holds the Lease already, else acquired."""
    spec = lease.spec
    time = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if spec.holder_identity == identity:
        return replace(lease, spec=replace(spec, renew_time=time))
    return replace(
        lease,
        spec=LeaseSpec(
            holder_identity=identity,
            lease_duration_seconds=round(timing.duration),
            acquire_time=time,
            renew_time=time,
            lease_transitions=(spec.lease_transitions or 0) + 1 if lease.metadata.resource_version else 0,
        ),
    )


def release(lease: Lease) -> Lease:
    """The Lease without a holder, so that the next replica need not wait."""
    return replace(lease, spec=replace(lease.spec, holder_identity=""))


class LeaderElection:
    """A candidate for one Lease.

    `identity` is unique among the candidates. It should survive a restart, so that a candidate need not wait for the
    Lease that it held itself.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Clock = system_clock,
        timing: LeaseTiming | None = None,
    ) -> None:
        self._cluster = cluster
        self._key = namespace, name
        self._identity = identity
        self._clock = clock
        self._timing = timing or LeaseTiming()
        self._loop = asyncio.get_running_loop()
        self._seen = ""
        self._changed = float("-inf")
        self.leading = False
        """Whether this candidate holds the Lease and acts."""
        self.has_read_lease = False
        """Whether the Lease has been read, so that its holder is known."""

    async def run(self, work: Work) -> None:
        """Run `work` whenever this candidate holds the Lease, until cancelled or `work` ends; then release the Lease.

        Raises what `work` raises.
        """
        while True:
            lease = await self._acquire()
            logger.info("elected", extra={"lease": self._key[1], "identity": self._identity})
            task = asyncio.create_task(work())
            self.leading = True
            try:
                await self._renew_while_held(lease, task)
            finally:
                self.leading = False
                task.cancel()
                await asyncio.wait((task,))
                await self._release()
            if not task.cancelled():
                task.result()
                return
            logger.warning("no longer elected", extra={"lease": self._key[1], "identity": self._identity})

    async def _acquire(self) -> Lease:
        """Wait until this candidate holds the Lease."""
        while True:
            try:
                held = await self._attempt()
            except (Conflict, AlreadyExists):
                held = None  # another candidate was faster
            except ClusterError as error:
                held = None
                logger.warning("lease cannot be acquired", extra={"lease": self._key[1], "error": str(error)})
            if held is not None:
                return held
            await asyncio.sleep(self._timing.every)

    async def _attempt(self) -> Lease | None:
        lease = await self._read()
        if lease is None:
            fresh = Lease(metadata=ObjectMeta(namespace=self._key[0], name=self._key[1]))
            return await self._cluster.create(LEASES, self._claim(fresh))
        self.has_read_lease = True
        if lease.metadata.resource_version != self._seen:
            self._seen, self._changed = lease.metadata.resource_version, self._loop.time()
        idle = self._loop.time() - self._changed >= self._timing.duration
        free = idle or lease.spec.holder_identity in {"", self._identity}
        return await self._cluster.replace(LEASES, self._claim(lease)) if free else None

    async def _renew_while_held(self, lease: Lease, task: asyncio.Task[None]) -> None:
        """Renew the Lease until the work ends or the Lease is lost."""
        renewed = self._loop.time()
        while True:
            await asyncio.wait((task,), timeout=self._timing.every)
            if task.done():
                return
            try:
                async with asyncio.timeout_at(renewed + self._timing.renew_within):
                    lease = await self._cluster.replace(LEASES, self._claim(lease))
                renewed = self._loop.time()
            except (Conflict, NotFound):
                current = await self._current()
                if current is None or current.spec.holder_identity != self._identity:
                    return
                lease = current
            except (ClusterError, TimeoutError) as error:
                logger.warning("lease cannot be renewed", extra={"lease": self._key[1], "error": str(error)})
            if self._loop.time() - renewed >= self._timing.renew_within:
                return

    async def _release(self) -> None:
        """Release the Lease if this candidate still holds it; gives up soon where the API server does not answer."""
        try:
            async with asyncio.timeout(self._timing.every):
                lease = await self._read()
                if lease is not None and lease.spec.holder_identity == self._identity:
                    await self._cluster.replace(LEASES, release(lease))
        except (ClusterError, TimeoutError) as error:
            logger.info("lease not released, left to expire", extra={"lease": self._key[1], "error": str(error)})

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

    def _claim(self, lease: Lease) -> Lease:
        return claim(lease, identity=self._identity, timing=self._timing, now=self._clock())
