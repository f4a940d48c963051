"""How far each receiver has been told, in annotations of Leases of the release namespace.

The server may write Leases there already. Only the leader writes these, and each write is guarded by the
resourceVersion. What a former leader wrote last may be lost: then something is told twice. A Lease holds the progress
of a limited number of receivers, since its annotations may have 256 KiB; others are told nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import msgspec

from kms.cluster.client import Cluster
from kms.cluster.errors import AlreadyExists, ClusterError, Conflict, NotFound
from kms.resources.core import Lease
from kms.resources.kinds import LEASES
from kms.resources.meta import ObjectMeta
from kms.resources.notifications import PROGRESS, Progress, progress_lease

logger = logging.getLogger(__name__)


def progress_of(lease: Lease | None) -> dict[str, Progress]:
    """The progress of receivers by the UID of their owner. What cannot be read is left out."""
    found = {}
    for name, text in (lease.metadata.annotations if lease is not None else {}).items():
        if name.startswith(PROGRESS):
            try:
                found[name.removeprefix(PROGRESS)] = msgspec.json.decode(text, type=Progress)
            except msgspec.DecodeError:
                logger.warning("progress of notifications cannot be read", extra={"uid": name.removeprefix(PROGRESS)})
    return found


@dataclass
class ProgressStore:
    """The progress of all receivers: in memory, and in the cluster after `save`."""

    cluster: Cluster
    namespace: str
    service: str
    maximum: int = 500
    """Receivers of one Lease."""
    known: dict[str, Progress] = field(default_factory=dict)
    _leases: dict[str, Lease] = field(default_factory=dict)

    async def load(self) -> None:
        """Read what is stored. Raises ClusterError."""
        self.known.clear()
        self._leases.clear()
        for digit in "0123456789abcdef":
            name = progress_lease(self.service, digit)
            await self._read(name)
            self.known |= progress_of(self._leases.get(name))

    def counts(self) -> Counter[str]:
        """How many receivers are known, by the name of their Lease."""
        return Counter(progress_lease(self.service, uid) for uid in self.known)

    async def save(self, *, uids: Collection[str]) -> None:
        """Store what has changed, of the receivers of these owners; forget others.

        Raises ClusterError, after it has tried to write all Leases.
        """
        for uid in self.known.keys() - set(uids):
            del self.known[uid]
        by_lease: defaultdict[str, list[str]] = defaultdict(list)
        for uid in self.known:
            by_lease[progress_lease(self.service, uid)].append(uid)
        failed: ClusterError | None = None
        for name in by_lease.keys() | self._leases.keys():
            wanted = {PROGRESS + uid: msgspec.json.encode(self.known[uid]).decode() for uid in by_lease[name]}
            try:
                await self._write(name, wanted)
            except ClusterError as error:
                failed = error
            await asyncio.sleep(0)
        if failed is not None:
            raise failed

    async def _write(self, name: str, annotations: dict[str, str]) -> None:
        lease = self._leases.get(name)
        if lease is None:
            lease = Lease(metadata=ObjectMeta(namespace=self.namespace, name=name))
        stored = {key: text for key, text in lease.metadata.annotations.items() if key.startswith(PROGRESS)}
        if stored == annotations:
            return
        others = {key: text for key, text in lease.metadata.annotations.items() if key not in stored}
        changed = msgspec.structs.replace(
            lease, metadata=msgspec.structs.replace(lease.metadata, annotations=others | annotations)
        )
        write: Callable[..., object] = self.cluster.replace if lease.metadata.resource_version else self.cluster.create
        try:
            self._leases[name] = await write(LEASES, changed)  # type: ignore[misc]  # both return the object
        except (Conflict, AlreadyExists, NotFound):
            self._leases.pop(name, None)
            await self._read(name)  # the next save writes it

    async def _read(self, name: str) -> None:
        try:
            self._leases[name] = await self.cluster.get(LEASES, self.namespace, name)
        except NotFound:
            self._leases.pop(name, None)
        except ClusterError:
            logger.warning("progress of notifications cannot be read", extra={"lease": name})
            raise
