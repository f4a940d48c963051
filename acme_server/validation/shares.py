"""Fair shares of the queue of validations: by namespace, by profile, by tenant, by account."""

from __future__ import annotations

from collections import Counter
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
        self._counts: Counter[Path] = Counter()
        self._children: Counter[Path] = Counter()

    def __len__(self) -> int:
        return self._counts[()]

    def has_room(self, leaf: Path) -> bool:
        """Whether the account (namespace, profile, tenant, account) may queue one more.

        Where the whole, a namespace or a profile has reached its limit, a part with less than an equal share of it may
        still queue more. So no limit is exceeded by more than its double.
        """
        if self._counts[leaf] >= self._limits.account:
            return False
        return all(self._has_room(leaf[:depth], leaf[: depth + 1]) for depth in range(len(leaf)))

    def _has_room(self, whole: Path, part: Path) -> bool:
        limit = self._limits[len(whole)]
        if self._counts[whole] < limit:
            return True
        parts = self._children[whole] + (self._counts[part] == 0)
        return self._counts[part] < limit // parts

    def add(self, leaf: Path) -> None:
        """Count one more of the account."""
        for depth in range(len(leaf) + 1):
            path = leaf[:depth]
            self._counts[path] += 1
            if self._counts[path] == 1 and path:
                self._children[path[:-1]] += 1

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
