"""The labels of namespaces, by which profiles decide what clients may do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from acme_server.metrics import Metrics
from kms.cluster.client import Cluster
from kms.cluster.errors import ClusterError, NotFound
from kms.cluster.informer import Informer
from kms.cluster.retry import Timing
from kms.resources.kinds import NAMESPACES

logger = logging.getLogger(__name__)


class Namespaces:
    """The labels of all namespaces, from a watch; or of some, read one by one every `pause` seconds.

    A watch of namespaces needs a permission in the whole cluster, which a server of a few namespaces does not have.
    Labels are not known any more when they have not been received for `patience` seconds: a tenant may have lost one.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        names: tuple[str, ...] = (),
        pause: float = 5.0,
        patience: float = 30.0,
        timing: Timing | None = None,
    ) -> None:
        self._cluster = cluster
        self._names = names
        self._pause = pause
        self._patience = patience
        self._monotonic = (timing or Timing()).monotonic
        self._informer = None if names else Informer(cluster, NAMESPACES, timing=timing)
        self._read: dict[str, tuple[Mapping[str, str], float]] = {}
        """The labels of each namespace, and when they were read."""
        self._failing: set[str] = set()
        self.synced = asyncio.Event() if self._informer is None else self._informer.synced
        """Set once all labels are known."""

    def labels_of(self, name: str) -> Mapping[str, str] | None:
        """The labels of the namespace; None: it does not exist, or is not known yet or any more."""
        if self._informer is None:
            labels, read_at = self._read.get(name, (None, 0.0))
            return labels if self._monotonic() - read_at <= self._patience else None
        found = self._informer.get("", name) if self._informer.outage_seconds() <= self._patience else None
        return found.metadata.labels if found is not None else None

    def outage_seconds(self) -> float:
        """Seconds since the watch was lost, if there is one."""
        return self._informer.outage_seconds() if self._informer is not None else 0.0

    def report_to(self, metrics: Metrics) -> None:
        """Show size and age of the copy as metrics."""
        size: Callable[[], int] = self._read.__len__
        idle: Callable[[], float] = self.outage_seconds
        if self._informer is not None:
            size, idle = self._informer.values().__len__, self._informer.idle_seconds
        metrics.watch_cache(NAMESPACES.plural, size, idle)

    async def run(self) -> None:
        """Keep the labels current, until cancelled."""
        if self._informer is not None:
            await self._informer.run()
        while True:
            complete = True
            for name in self._names:
                complete &= await self._refresh(name)
            if complete:
                self.synced.set()
            await asyncio.sleep(self._pause)

    async def _refresh(self, name: str) -> bool:
        """Read the namespace; returns whether the API server answered. If it does not, the old labels stay for now."""
        try:
            namespace = await self._cluster.get(NAMESPACES, "", name)
        except NotFound:
            self._read.pop(name, None)
        except ClusterError as error:
            if name not in self._failing:  # once, not with every attempt
                logger.warning("namespace cannot be read", extra={"namespace": name, "error": str(error)})
            self._failing.add(name)
            return False
        else:
            self._read[name] = namespace.metadata.labels, self._monotonic()
        self._failing.discard(name)
        return True
