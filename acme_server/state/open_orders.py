"""How many open orders an account may have, counted from what passes through this replica's store."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

from acme_server.orders.transitions import OPEN_STATES
from acme_server.problems import ProblemType, Refused
from kms.clock import Clock
from kms.resources.orders import ACMEOrder

MAXIMUM_OPEN_ORDERS = 300
"""For one account. cert-manager works on 60 challenges at a time, so more than this only fill etcd."""
_ACCOUNTS = 10_000
_RETRY_AFTER = 30


class OpenOrderQuota:
    """Knows the open orders of the accounts that were active last; bounded in both directions."""

    def __init__(self, *, clock: Clock, maximum: int = MAXIMUM_OPEN_ORDERS, accounts: int = _ACCOUNTS) -> None:
        self._clock = clock
        self._maximum = maximum
        self._accounts = accounts
        self._open: OrderedDict[tuple[str, str], dict[str, datetime]] = OrderedDict()

    def seen(self, order: ACMEOrder, deleted: bool) -> None:  # noqa: FBT001 - the signature of the store's listeners
        """Count the order while it is open; an authorization without an order is, until it is valid."""
        key = order.metadata.namespace, order.spec.account_ref.name
        proven_before = order.spec.preauthorization and order.status.state == "ready"
        if deleted or proven_before or order.status.state not in OPEN_STATES:
            self._ended(key, order.metadata.name)
            return
        orders = self._open.setdefault(key, {})
        self._open.move_to_end(key)
        if len(orders) < self._maximum:
            orders[order.metadata.name] = order.spec.expires
        while len(self._open) > self._accounts:
            self._open.popitem(last=False)

    def _ended(self, key: tuple[str, str], order: str) -> None:
        orders = self._open.get(key)
        if orders is not None:
            orders.pop(order, None)
            if not orders:
                del self._open[key]

    def admit(self, namespace: str, account: str) -> None:
        """Raise Refused (rateLimited) where the account has as many open orders as it may have.

        With status 503: cert-manager takes a 429 as the end of the order, and waits politely on a 503.
        """
        orders = self._open.get((namespace, account), {})
        if len(orders) < self._maximum:
            return
        now = self._clock()
        for name in [name for name, expires in orders.items() if expires < now]:
            del orders[name]
        if len(orders) >= self._maximum:
            raise Refused(
                ProblemType.RATE_LIMITED,
                f"The account has {self._maximum} open orders; finish some of them first.",
                status=503,
                headers={"Retry-After": str(_RETRY_AFTER)},
            )
