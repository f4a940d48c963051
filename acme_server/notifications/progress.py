"""How far each receiver has been told, in annotations of Leases of the release namespace.

The server may write Leases there already. Only the leader writes these, and each write is guarded by the
resourceVersion. What a former leader wrote last may be lost: then something is told twice.
"""

from __future__ import annotations

import logging
from collections import defaultdict
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
    known: dict[str, Progress] = field(default_factory=dict)
    _leases: dict[str, Lease] = field(default_factory=dict)

    async def load(self) -> None:
        """Read what is stored. Raises ClusterError."""
        self.known.clear()
        self._leases.clear()
        for digit in "0123456789abcdef":
            await self._read(progress_lease(self.service, digit))
        for lease in self._leases.values():
            self.known |= progress_of(lease)

    async def save(self, *, uids: Collection[str]) -> None:
        """Store what has changed, of the receivers of these owners; forget others. Raises ClusterError."""
        wanted: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for uid in self.known.keys() - set(uids):
            del self.known[uid]
        for uid, progress in self.known.items():
            wanted[progress_lease(self.service, uid)][PROGRESS + uid] = msgspec.json.encode(progress).decode()
        for name in wanted.keys() | self._leases.keys():
            await self._write(name, wanted[name])

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
