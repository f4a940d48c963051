"""Changes of the configuration by administrators and tenants, as the watch shows them.

The audit log of the API server says who made them. Here they stand among the decisions that follow from them. One
replica records them, the one that leads; a change while no replica leads is not recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from acme_server.audit.decisions import Envelope
from acme_server.audit.record import AuditRecord, ChangedObject
from acme_server.audit.stream import AuditStream
from kms.resources.kinds import Kind
from kms.resources.meta import Resource


class ConfigurationChanges:
    """Records objects that are created, deleted or get another generation. Changes of their status do not count.

    `is_due` says whether this replica records changes, and has listed all objects.
    """

    def __init__(self, audit: AuditStream, *, is_due: Callable[[], bool]) -> None:
        self._audit = audit
        self._is_due = is_due
        self._generations: dict[str, int] = {}

    def notice(self, kind: Kind[Any], resource: Resource, deleted: bool) -> None:  # noqa: FBT001 - as watches call it
        """Take in a version of an object, or its deletion."""
        if not self._audit.is_written:
            return
        metadata = resource.metadata
        known, generation = self._generations.get(metadata.uid), metadata.generation
        if deleted:
            self._generations.pop(metadata.uid, None)
        else:
            self._generations[metadata.uid] = generation
        if (not deleted and known == generation) or not self._is_due():
            return
        change: Literal["created", "changed", "deleted"] = "created" if known is None else "changed"
        changed = ChangedObject(
            kind=kind.kind,
            namespace=metadata.namespace,
            name=metadata.name,
            change="deleted" if deleted else change,
            generation=generation,
        )

        def line(envelope: Envelope) -> AuditRecord:
            return envelope.record("configuration.changed", by="administrator", object=changed)

        self._audit.add(line)
