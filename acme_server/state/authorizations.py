"""Which account has a valid authorization for which identifier, in memory.

A new order reuses authorizations of earlier orders (RFC 8555, 7.1.3) without a read; finalize checks again that they
are still valid.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from acme_server.state.index import Index, View
from kms.clock import Clock
from kms.resources.meta import Key
from kms.resources.orders import ACMEOrder, Authorization, ChallengeType, Identifier


class Holder(NamedTuple):
    """An account and an identifier as orders spell it: a wildcard with its `*.`."""

    namespace: str
    account: str
    identifier: Identifier

    @classmethod
    def of(cls, order: ACMEOrder, identifier: Identifier) -> Holder:
        """The account of the order, with one of its identifiers."""
        return cls(sys.intern(order.metadata.namespace), sys.intern(order.spec.account_ref.name), identifier)


@dataclass(frozen=True, slots=True)
class ProvenAuthorization:
    """A valid authorization: the one at `position` of the order named `order`, for clients of that namespace."""

    order: str
    position: int
    type: ChallengeType
    validated: datetime
    expires: datetime
    client_namespace: str | None = None


class Authorizations(View[ACMEOrder]):
    """The newest valid authorization of every account for every identifier, until it expires."""

    def __init__(self, index: Index[ACMEOrder], *, clock: Clock) -> None:
        super().__init__(index)
        self._clock = clock
        self._authorizations: dict[Holder, ProvenAuthorization] = {}
        self._holders: dict[Key, tuple[Holder, ...]] = {}
        self._expiring: list[tuple[datetime, int, Holder]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._authorizations)

    def find(self, holder: Holder) -> ProvenAuthorization | None:
        """The holder's valid authorization; None if there is none or it has expired."""
        known = self._authorizations.get(holder)
        return known if known is not None and known.expires > self._clock() else None

    def holds(self, holder: Holder, order: str, position: int) -> bool:
        """Whether exactly this authorization is certainly valid. If not, read its order to find out."""
        known = self._authorizations.get(holder)
        return (
            known is not None
            and (known.order, known.position) == (order, position)
            and known.expires > self._clock()
            and self._index.is_confirmed((holder.namespace, order))
        )

    def put(self, key: Key, order: ACMEOrder) -> None:
        """Keep the order's valid authorizations that are newer than the known ones."""
        self.remove(key)
        self._drop_expired()
        now = self._clock()
        holders: list[Holder] = []
        for holder, proven in _authorizations(order):
            known = self._authorizations.get(holder)
            if proven.expires <= now or (known is not None and known.validated > proven.validated):
                continue
            if known is not None:
                self._release((holder.namespace, known.order), holder)
            self._authorizations[holder] = proven
            holders.append(holder)
            heapq.heappush(self._expiring, (proven.expires, next(self._count), holder))
        if holders:
            self._holders[key] = tuple(holders)

    def remove(self, key: Key) -> None:
        """Forget the authorizations of the order."""
        for holder in self._holders.pop(key, ()):
            self._authorizations.pop(holder, None)

    def obscure(self, key: Key) -> None:
        """Forget the authorizations of an order that cannot be read: they may have been revoked."""
        self.remove(key)

    def _release(self, key: Key, holder: Holder) -> None:
        """Forget that the order has the newest authorization of the holder."""
        remaining = tuple(each for each in self._holders.get(key, ()) if each != holder)
        if remaining:
            self._holders[key] = remaining
        else:
            self._holders.pop(key, None)

    def _drop_expired(self) -> None:
        now = self._clock()
        while self._expiring and self._expiring[0][0] <= now:
            expires, _, holder = heapq.heappop(self._expiring)
            known = self._authorizations.get(holder)
            if known is not None and known.expires == expires:
                del self._authorizations[holder]
                self._release((holder.namespace, known.order), holder)


def own_authorization(order: ACMEOrder, position: int) -> Authorization | None:
    """The authorization at `position`, if it was validated for this order and not reused from an earlier one."""
    if not 0 <= position < len(order.status.authorizations):
        return None
    if any(each.authorization == position for each in order.spec.authorized):
        return None
    return order.status.authorizations[position]


def _authorizations(order: ACMEOrder) -> Iterator[tuple[Holder, ProvenAuthorization]]:
    """The authorizations validated for this order: not those it reuses, nor those it got without validation."""
    reused = {each.authorization for each in order.spec.authorized}
    namespace = order.spec.client_namespace and sys.intern(order.spec.client_namespace)
    for position, (identifier, authorization) in enumerate(
        zip(order.spec.identifiers, order.status.authorizations, strict=False)
    ):
        if position in reused or authorization.state != "valid":
            continue
        valid = next((each for each in authorization.challenges if each.state == "valid"), None)
        if valid is not None and valid.validated is not None:
            yield (
                Holder.of(order, identifier),
                ProvenAuthorization(
                    order.metadata.name, position, valid.type, valid.validated, authorization.expires, namespace
                ),
            )
