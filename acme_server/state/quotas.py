"""How many accounts and orders may exist: etcd must not fill up."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from acme_server.model import Profile
from acme_server.problems import ProblemType, Refused
from acme_server.state.index import Index, View
from kms.clock import Clock
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import Key
from kms.resources.orders import OPEN_STATES, ACMEOrder, with_authorizations

MAXIMUM_OPEN_ORDERS = 300
"""Open orders of one account. cert-manager works on 60 challenges at a time; more orders only fill etcd."""
_RETRY_WHEN_FULL = 300
_RETRY_WHEN_BUSY = 30

T = TypeVar("T", bound=ACMEAccount | ACMEOrder)


class ObjectQuota(View[T]):
    """Counts the objects of one kind, altogether and by profile.

    `what` names the kind in problem documents, `maximum` limits their number altogether. Objects for which
    `counts_for_profile` is false (aliases of accounts) count only altogether.
    """

    def __init__(
        self,
        index: Index[T],
        what: str,
        *,
        maximum: int,
        counts_for_profile: Callable[[T], bool] = lambda _resource: True,
    ) -> None:
        super().__init__(index)
        self._what = what
        self.maximum = maximum
        self._counts_for_profile = counts_for_profile
        self._profiles: dict[Key, Key] = {}
        self._counts: Counter[Key] = Counter()

    def __len__(self) -> int:
        return len(self._profiles)

    def count(self, namespace: str, profile: str) -> int:
        """The number of objects of the profile."""
        return self._counts[namespace, profile]

    def put(self, key: Key, resource: T) -> None:
        """Count the object; one that took the name of another before that was seen to go, in its place."""
        name = resource.spec.profile_ref.name if self._counts_for_profile(resource) else ""
        profile = sys.intern(key[0]), sys.intern(name)
        if key in self._profiles:
            if self._profiles[key] == profile:
                return
            self.remove(key)
        self._profiles[key] = profile
        self._counts[profile] += 1

    def remove(self, key: Key) -> None:
        """Stop counting the object."""
        profile = self._profiles.pop(key)
        self._counts[profile] -= 1
        if not self._counts[profile]:
            del self._counts[profile]

    def obscure(self, key: Key) -> None:
        """Go on counting the object: it still takes its place. One of an unknown profile counts altogether."""
        if key not in self._profiles:
            profile = self._profiles[key] = sys.intern(key[0]), ""
            self._counts[profile] += 1

    def admit(self, profile: Profile, *, limit: int | None, field: str) -> None:
        """Raise Refused (rateLimited) if the profile, or the server, must not have one more.

        `limit` is the value of the profile's `field`.
        """
        if limit is not None and self.count(*profile.key) >= limit:
            raise _full(f"Profile {'/'.join(profile.key)} has reached its limit of {limit} {self._what} ({field}).")
        if len(self) >= self.maximum:
            raise _full(f"This server has reached its limit of {self.maximum} {self._what}.")


class OpenOrderQuota(View[ACMEOrder]):
    """Counts the open orders of each account."""

    def __init__(self, index: Index[ACMEOrder], *, clock: Clock, maximum: int = MAXIMUM_OPEN_ORDERS) -> None:
        super().__init__(index)
        self._clock = clock
        self.maximum = maximum
        self._accounts: dict[Key, Key] = {}
        self._expirations: dict[Key, dict[Key, datetime]] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def count(self, namespace: str, account: str) -> int:
        """The number of the account's open orders that have not expired."""
        now = self._clock()
        return sum(expires >= now for expires in self._expirations.get((namespace, account), {}).values())

    def put(self, key: Key, order: ACMEOrder) -> None:
        """Count the order while it is open; a pre-authorization, until it is valid."""
        order = with_authorizations(order)  # lists and events have no authorizations of a new order
        if order.status.state not in OPEN_STATES or (order.spec.preauthorization and order.status.state == "ready"):
            self.remove(key)
            return
        account = self._accounts[key] = sys.intern(key[0]), sys.intern(order.spec.account_ref.name)
        self._expirations.setdefault(account, {})[key] = order.spec.expires

    def remove(self, key: Key) -> None:
        """Stop counting the order."""
        account = self._accounts.pop(key, None)
        if account is None:
            return
        orders = self._expirations[account]
        del orders[key]
        if not orders:
            del self._expirations[account]

    def obscure(self, key: Key) -> None:
        """Go on counting the order, until it expires."""

    def admit(self, namespace: str, account: str) -> None:
        """Raise Refused (rateLimited) if the account has as many open orders as it may have."""
        if len(self._expirations.get((namespace, account), ())) < self.maximum:
            return
        if self.count(namespace, account) >= self.maximum:
            raise Refused(
                ProblemType.RATE_LIMITED,
                f"The account has {self.maximum} open orders; finish some of them first.",
                retry_after=_RETRY_WHEN_BUSY,
            )


def _full(detail: str) -> Refused:
    return Refused(ProblemType.RATE_LIMITED, detail, retry_after=_RETRY_WHEN_FULL)
