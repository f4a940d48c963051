"""Which account has a valid authorization for which identifier, in memory.

A new order reuses authorizations of earlier orders (RFC 8555, 7.1.3) without a read; finalize checks again that they
are still valid. An authorization that is not known here is no error: the name is proven again.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from acme_server.state.index import Index, View
from kms.clock import Clock
from kms.resources.meta import Key, ObjectMeta
from kms.resources.orders import ACMEOrder, Authorization, ChallengeType, Identifier, is_for

CAPACITY = 100_000
"""Authorizations that are kept: about 40 MB."""
_SUPERSEDED = 1_000
"""Entries of the heap that no authorization has any more, beside as many as there are authorizations."""


class Holder(NamedTuple):
    """An account and an identifier as orders spell it: a wildcard with its `*.`."""

    namespace: str
    account: str
    identifier: Identifier

    @classmethod
    def of(cls, order: ACMEOrder, identifier: Identifier) -> Holder:
        """The account of the order, with one of its identifiers."""
        return cls(sys.intern(order.metadata.namespace), sys.intern(order.spec.account_ref.name), identifier)

    def digest(self) -> bytes:
        """What is kept of the holder: clients decide how long names are."""
        text = f"{self.namespace}/{self.account}/{self.identifier.type}/{self.identifier.value}"
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class ProvenAuthorization:
    """A valid authorization: the one at `position` of the order with that key, for clients of that namespace."""

    key: Key
    position: int
    type: ChallengeType
    validated: datetime
    expires: datetime
    client_namespace: str | None = None

    @property
    def order(self) -> str:
        """The name of the order."""
        return self.key[1]


class Authorizations(View[ACMEOrder]):
    """The newest valid authorization of every account for every identifier, until it expires.

    At most `capacity` of them: those that expire first are forgotten first.
    """

    def __init__(self, index: Index[ACMEOrder], *, clock: Clock, capacity: int = CAPACITY) -> None:
        super().__init__(index)
        self._clock = clock
        self._capacity = capacity
        self._authorizations: dict[bytes, ProvenAuthorization] = {}
        self._holders: dict[Key, tuple[bytes, ...]] = {}
        self._expiring: list[tuple[datetime, int, bytes]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._authorizations)

    @property
    def complete(self) -> bool:
        """Whether every order was listed. If not, an authorization that is not known may exist."""
        return self._index.complete

    @property
    def full(self) -> bool:
        """Whether valid authorizations may have been forgotten to make room."""
        return len(self._authorizations) >= self._capacity

    def has_seen(self, order: ObjectMeta) -> bool:
        """Whether the authorizations of that version of the order are known."""
        return self._index.has(order)

    def find(self, holder: Holder) -> ProvenAuthorization | None:
        """The holder's valid authorization; None if there is none or it has expired."""
        known = self._authorizations.get(holder.digest())
        return known if known is not None and known.expires > self._clock() else None

    def holds(self, holder: Holder, order: str, position: int) -> bool:
        """Whether exactly this authorization is certainly valid. If not, read its order to find out."""
        known = self._authorizations.get(holder.digest())
        return (
            known is not None
            and (known.order, known.position) == (order, position)
            and known.expires > self._clock()
            and self._index.is_confirmed((holder.namespace, order))
        )

    def put(self, key: Key, order: ACMEOrder) -> None:
        """Keep the order's valid authorizations that are newer than the known ones."""
        self.remove(key)
        now = self._clock()
        self._shrink(now)
        holders: list[bytes] = []
        for holder, proven in _authorizations(key, order):
            known = self._authorizations.get(holder)
            if proven.expires <= now or (known is not None and known.validated > proven.validated):
                continue
            if known is not None:
                self._release(known.key, holder)
            self._authorizations[holder] = proven
            holders.append(holder)
            heapq.heappush(self._expiring, (proven.expires, next(self._count), holder))
        if holders:
            self._holders[key] = tuple(holders)
        self._shrink(now)

    def remove(self, key: Key) -> None:
        """Forget the authorizations of the order."""
        for holder in self._holders.pop(key, ()):
            self._authorizations.pop(holder, None)

    def obscure(self, key: Key) -> None:
        """Forget the authorizations of an order that cannot be read: they may have been revoked."""
        self.remove(key)

    def _release(self, key: Key, holder: bytes) -> None:
        """Forget that the order has the newest authorization of the holder."""
        remaining = tuple(each for each in self._holders.get(key, ()) if each != holder)
        if remaining:
            self._holders[key] = remaining
        else:
            self._holders.pop(key, None)

    def _shrink(self, now: datetime) -> None:
        """Forget what has expired, and what expires first while there are too many."""
        while self._expiring and (self._expiring[0][0] <= now or len(self._authorizations) > self._capacity):
            expires, _, holder = heapq.heappop(self._expiring)
            known = self._authorizations.get(holder)
            if known is not None and known.expires == expires:
                del self._authorizations[holder]
                self._release(known.key, holder)
        if len(self._expiring) > 2 * len(self._authorizations) + _SUPERSEDED:
            current = self._authorizations.items()
            self._expiring = [(each.expires, next(self._count), holder) for holder, each in current]
            heapq.heapify(self._expiring)


def own_authorization(order: ACMEOrder, position: int) -> Authorization | None:
    """The authorization at `position`, if it was validated for this order and not reused from an earlier one.

    None also for one that is not that of the identifier, in an order that somebody has damaged.
    """
    if order.was_changed:
        return None
    identifiers, known = order.spec.identifiers, order.status.authorizations
    if not 0 <= position < min(len(known), len(identifiers)) or not is_for(known[position], identifiers[position]):
        return None
    if any(each.authorization == position for each in order.spec.authorized):
        return None
    return known[position]


def _authorizations(key: Key, order: ACMEOrder) -> Iterator[tuple[bytes, ProvenAuthorization]]:
    """The authorizations validated for this order: not those it reuses, nor those it got without validation.

    None of an order whose spec was changed: it may have been another account, with other names.
    """
    if order.was_changed:
        return
    reused = {each.authorization for each in order.spec.authorized}
    namespace = order.spec.client_namespace and sys.intern(order.spec.client_namespace)
    for position, (identifier, authorization) in enumerate(
        zip(order.spec.identifiers, order.status.authorizations, strict=False)
    ):
        if position in reused or authorization.state != "valid" or not is_for(authorization, identifier):
            continue
        valid = next((each for each in authorization.challenges if each.state == "valid"), None)
        if valid is not None and valid.validated is not None:
            yield (
                Holder.of(order, identifier).digest(),
                ProvenAuthorization(key, position, valid.type, valid.validated, authorization.expires, namespace),
            )
