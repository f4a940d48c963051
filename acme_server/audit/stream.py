"""Writes the audit stream: to standard output, to a file, or nowhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from logging.handlers import WatchedFileHandler

from acme_server.audit.actor import ACTOR
from acme_server.audit.decisions import Envelope, of_account, of_order, of_revocation_record
from acme_server.audit.record import AuditRecord, line_of
from kms.clock import Clock, system_clock
from kms.logs import TurnHandler
from kms.resources.accounts import ACMEAccount
from kms.resources.orders import ACMEOrder
from kms.resources.revocations import RevocationRecord

logger = logging.getLogger(__name__)

STANDARD_OUTPUT = "-"


class _Reporting(logging.Handler):
    """What cannot be written goes to the log, and no request fails because of it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the name that logging calls
        """Log the error that is being handled."""
        logger.error("audit stream cannot be written", extra={"error": str(sys.exception())})


class _Stream(_Reporting, TurnHandler):
    pass


class _File(_Reporting, TurnHandler, WatchedFileHandler):
    """A file that is opened again after a program for the rotation of logs has renamed it."""


def open_stream(destination: str, *, turns: int | None = None) -> logging.Handler | None:
    """What writes lines to standard output ("-") or a file; None for "". Raises OSError for a file.

    For `turns`, see TurnHandler.
    """
    if not destination:
        return None
    handler = _Stream(sys.stdout) if destination == STANDARD_OUTPUT else _File(destination, encoding="utf-8")
    handler.turns = turns
    return handler


FindAccount = Callable[[str, str], ACMEAccount | None]
"""Finds an account that this replica has at hand, so that lines about orders name its credential."""


class AuditStream:
    """Records decisions. Without a handler nothing is written, and nothing is computed."""

    def __init__(self, handler: logging.Handler | None, *, replica: str, clock: Clock) -> None:
        self._handler = handler
        self._replica = replica
        self._clock = clock

    @property
    def is_written(self) -> bool:
        """Whether the stream is written anywhere."""
        return self._handler is not None

    def on_order(self, find_account: FindAccount, before: ACMEOrder | None, after: ACMEOrder) -> None:
        """Record what a write of an order has decided; None: it was created."""
        if self._handler is not None:
            self._write(of_order(before, after, self._envelope(find_account)))

    def on_account(self, before: ACMEAccount | None, after: ACMEAccount) -> None:
        """Record what a write of an account has decided."""
        if self._handler is not None:
            self._write(of_account(before, after, self._envelope()))

    def on_revocation_record(self, _: RevocationRecord | None, after: RevocationRecord) -> None:
        """Record a revocation that the server has found in the cluster."""
        if self._handler is not None:
            self._write(of_revocation_record(after, self._envelope()))

    def add(self, make: Callable[[Envelope], AuditRecord | None]) -> None:
        """Record what `make` returns; it is not called if the stream is written nowhere."""
        if self._handler is not None and (record := make(self._envelope())) is not None:
            self._write((record,))

    def close(self) -> None:
        """Close the file. Nothing may be recorded afterwards."""
        if self._handler is not None:
            self._handler.close()

    def _envelope(self, find_account: FindAccount = lambda _namespace, _name: None) -> Envelope:
        return Envelope(self._clock(), self._replica, ACTOR.get(), find_account)

    def _write(self, records: Iterable[AuditRecord]) -> None:
        if self._handler is None:
            return
        for each in records:
            self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, line_of(each), None, None))


def no_stream() -> AuditStream:
    """A stream that is written nowhere."""
    return AuditStream(None, replica="", clock=system_clock)
