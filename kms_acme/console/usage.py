"""What accounts and credentials have used. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from kms.resources.meta import Key
from kms_acme.certificates import Row
from kms_acme.console.entries import Account, Order


@dataclass(slots=True)
class Usage:
    """Numbers of accounts, orders, valid certificates and failed orders, and the time of the latest order."""

    accounts: int = 0
    orders: int = 0
    valid: int = 0
    failed: int = 0
    latest: datetime | None = None

    def add(self, other: Usage) -> None:
        """Add what an account has used."""
        self.orders += other.orders
        self.valid += other.valid
        self.failed += other.failed
        if other.latest is not None and (self.latest is None or other.latest > self.latest):
            self.latest = other.latest


def by_account(orders: Iterable[Order]) -> Mapping[Key, Usage]:
    """What each account has used."""
    found: defaultdict[Key, Usage] = defaultdict(Usage)
    for order in orders:
        usage = found[order.namespace, order.account]
        usage.orders += 1
        if isinstance(order, Row):
            usage.valid += order.state == "valid"
            at = order.issued
        else:
            usage.failed += order.has_failed
            at = order.created
        if at is not None and (usage.latest is None or at > usage.latest):
            usage.latest = at
    return found


def by_credential(accounts: Iterable[Account], used: Mapping[Key, Usage]) -> Mapping[Key, Usage]:
    """What the accounts of each credential have used."""
    found: defaultdict[Key, Usage] = defaultdict(Usage)
    for account in accounts:
        if account.credential is not None:
            usage = found[account.credential]
            usage.accounts += 1
            own = used.get((account.namespace, account.name))
            if own is not None:
                usage.add(own)
    return found
