"""Fair shares of the queue of validations: by namespace, by profile, by tenant, by account."""

from __future__ import annotations

from typing import NamedTuple

from acme_server.fair_slots import Path


class Limits(NamedTuple):
    """How many validations there may be in all and for one namespace, profile, tenant and account.

    A tenant is what `ACMEOrder.tenant` names; the clients of the profile's own namespace count as one.
    """

    total: int
    namespace: int
    profile: int
    tenant: int
    account: int


class QueueShares:
    """Counts what is queued, and says who may queue more."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._counts: dict[Path, int] = {}
        self._children: dict[Path, int] = {}

    def __len__(self) -> int:
        return self._counts.get((), 0)

    def has_room(self, leaf: Path) -> bool:
        """Whether the account (namespace, profile, tenant, account) may queue one more.

        Where the whole, a namespace or a profile has reached its limit, a part with less than an equal share of it may
        still queue more. So no limit is exceeded by more than its double.
        """
        if self._counts.get(leaf, 0) >= self._limits.account:
            return False
        for depth in range(len(leaf)):
            whole, limit = leaf[:depth], self._limits[depth]
            if self._counts.get(whole, 0) >= limit and not self._is_below_share(whole, leaf[: depth + 1], limit):
                return False
        return True

    def _is_below_share(self, whole: Path, part: Path, limit: int) -> bool:
        count = self._counts.get(part, 0)
        parts = self._children[whole] + (count == 0)
        return count < limit // parts

    def add(self, leaf: Path) -> None:
        """Count one more of the account."""
        for depth in range(len(leaf) + 1):
            path = leaf[:depth]
            count = self._counts.get(path, 0)
            self._counts[path] = count + 1
            if not count and path:
                self._children[path[:-1]] = self._children.get(path[:-1], 0) + 1

    def remove(self, leaf: Path) -> None:
        """Count one less of the account."""
        for depth in range(len(leaf), -1, -1):
            path = leaf[:depth]
            self._counts[path] -= 1
            if not self._counts[path]:
                del self._counts[path]
                self._children.pop(path, None)
                if path:
                    self._children[path[:-1]] -= 1
