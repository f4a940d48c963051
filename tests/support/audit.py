"""An audit stream that a test reads."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import msgspec

from acme_server.audit.record import MAXIMUM_LINE, AuditRecord
from acme_server.audit.stream import AuditStream
from kms.clock import Clock


class Lines(logging.Handler):
    """Collects the lines, each of which fits the schema and its bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    def stream(self, clock: Clock = lambda: datetime(2026, 11, 30, tzinfo=UTC)) -> AuditStream:
        """The stream whose lines these are."""
        return AuditStream(self, replica="server-0", clock=clock)

    def take(self) -> list[AuditRecord]:
        """The lines since the last call."""
        taken, self.texts = self.texts, []
        for each in taken:
            assert each.isprintable()
            assert len(each.encode()) < MAXIMUM_LINE
            assert set(msgspec.json.decode(each)) <= set(AuditRecord.__struct_fields__)
        return [msgspec.json.decode(each, type=AuditRecord) for each in taken]

    def decisions(self) -> list[str]:
        """The decisions of the lines since the last call."""
        return [each.decision for each in self.take()]


def members(record: AuditRecord) -> dict[str, Any]:
    """The members that are written."""
    found: dict[str, Any] = msgspec.to_builtins(record)
    return found
