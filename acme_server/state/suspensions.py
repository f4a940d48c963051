"""Records that administrators suspend and resume accounts (`kms-acme account`); no server ever does.

One replica records them, the one that leads. What happened while no replica led is not recorded.
"""

from __future__ import annotations

from collections.abc import Callable

from acme_server.audit.decisions import Envelope
from acme_server.audit.record import AuditRecord, Decision
from acme_server.audit.stream import AuditStream
from acme_server.state.index import Index, View
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import Key


class Suspensions(View[ACMEAccount]):
    """The accounts that are suspended. `is_due` says whether this replica records changes."""

    def __init__(self, index: Index[ACMEAccount], audit: AuditStream, *, is_due: Callable[[], bool]) -> None:
        super().__init__(index)
        self._audit = audit
        self._is_due = is_due
        self._suspended: set[Key] = set()

    def put(self, key: Key, account: ACMEAccount) -> None:
        """Record the change if the account was suspended or resumed."""
        state = account.status.state
        if (state == "suspended") == (key in self._suspended):
            return
        if state == "suspended":
            self._suspended.add(key)
            self._record("account.suspended", account)
        else:
            self._suspended.discard(key)
            if state == "valid":
                self._record("account.resumed", account)

    def remove(self, key: Key) -> None:
        """Forget the account."""
        self._suspended.discard(key)

    def obscure(self, key: Key) -> None:
        """Leave the account as it is known."""

    def _record(self, decision: Decision, account: ACMEAccount) -> None:
        if not self._index.complete or not self._is_due():
            return

        def line(envelope: Envelope) -> AuditRecord:
            return envelope.record(decision, by="administrator", **envelope.of_account(account))

        self._audit.add(line)
