"""The proofs of control that hold: which authorization an account has for which identifier, in memory.

A new order relies on authorizations of earlier ones (RFC 8555, 7.1.3) without a read: of each account and identifier
the newest valid authorization is kept here, filled by a survey once the watch has begun and kept by the watch. What is
found here opens an order; whether it still holds is asked again before a certificate is made.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from acme_server.state.cache import Key
from kms.clock import Clock
from kms.cluster.resource_version import newer
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder, Authorization, ChallengeType, Identifier

_REMEMBERED = 10_000
"""Orders that went or lost an authorization last: an older version of them that arrives late proves nothing."""


class Holder(NamedTuple):
    """Who may do what: an account, and an identifier as orders have it, a wildcard with its `*.`."""

    namespace: str
    account: str
    identifier: Identifier

    @classmethod
    def of(cls, order: ACMEOrder, identifier: Identifier) -> Holder:
        """The account of the order, with one of its identifiers."""
        return cls(sys.intern(order.metadata.namespace), sys.intern(order.spec.account_ref.name), identifier)


@dataclass(frozen=True, slots=True)
class ProvenAuthorization:
    """A valid authorization: the one at `position` of the order of that name."""

    order: str
    position: int
    type: ChallengeType
    validated: datetime
    expires: datetime


class Authorizations:
    """The newest valid authorization of every account for every identifier, until it expires."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._authorizations: dict[Holder, ProvenAuthorization] = {}
        self._holders: dict[Key, tuple[Holder, ...]] = {}
        self._versions: dict[Key, str] = {}
        self._ended: OrderedDict[Key, str] = OrderedDict()
        self._expiring: list[tuple[datetime, int, Holder]] = []
        self._count = itertools.count()
        self._unconfirmed: set[Key] = set()

    def __len__(self) -> int:
        return len(self._authorizations)

    def find(self, holder: Holder) -> ProvenAuthorization | None:
        """The proof that the account has, if it has not expired."""
        proof = self._authorizations.get(holder)
        return proof if proof is not None and proof.expires > self._clock() else None

    def holds(self, holder: Holder, order: str, position: int) -> bool:
        """Whether this very authorization is known to be valid. If not, only a read of its order can tell."""
        proof = self._authorizations.get(holder)
        return (
            proof is not None
            and (proof.order, proof.position) == (order, position)
            and proof.expires > self._clock()
            and (holder.namespace, order) not in self._unconfirmed
        )

    def seen(self, order: ACMEOrder, deleted: bool) -> None:  # noqa: FBT001 - the signature of the store's listeners
        """Take note of an order in this version, or of its end."""
        key, version = key_of(order), order.metadata.resource_version
        self._unconfirmed.discard(key)
        if self._is_old(key, version) and not deleted:
            return
        self._forget(key)
        self._drop_expired()
        if deleted or any(each.state in {"deactivated", "revoked"} for each in order.status.authorizations):
            self._ended[key] = version
            while len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)
        if not deleted:
            self._take(key, version, order)

    def missed(self) -> None:
        """Changes may have been missed: what the next survey does not confirm is gone."""
        self._unconfirmed = set(self._holders)

    def surveyed(self) -> None:
        """Every order that there is has been seen."""
        for key in self._unconfirmed:
            self._forget(key)
        self._unconfirmed = set()

    def _is_old(self, key: Key, version: str) -> bool:
        known = self._versions.get(key) or self._ended.get(key)
        return known is not None and not newer(version, known)

    def _take(self, key: Key, version: str, order: ACMEOrder) -> None:
        now = self._clock()
        holders: list[Holder] = []
        for holder, proof in _authorizations(order):
            known = self._authorizations.get(holder)
            if proof.expires <= now or (known is not None and known.validated > proof.validated):
                continue
            if known is not None:
                self._release((holder.namespace, known.order), holder)
            self._authorizations[holder] = proof
            holders.append(holder)
            heapq.heappush(self._expiring, (proof.expires, next(self._count), holder))
        if holders:
            self._holders[key] = tuple(holders)
            self._versions[key] = version

    def _release(self, key: Key, holder: Holder) -> None:
        """Let an order go as soon as none of its proofs is kept any more."""
        left = tuple(each for each in self._holders.get(key, ()) if each != holder)
        if left:
            self._holders[key] = left
        else:
            self._holders.pop(key, None)
            self._versions.pop(key, None)

    def _forget(self, key: Key) -> None:
        for holder in self._holders.pop(key, ()):
            self._authorizations.pop(holder, None)
        self._versions.pop(key, None)

    def _drop_expired(self) -> None:
        now = self._clock()
        while self._expiring and self._expiring[0][0] <= now:
            expires, _, holder = heapq.heappop(self._expiring)
            proof = self._authorizations.get(holder)
            if proof is not None and proof.expires == expires:
                del self._authorizations[holder]
                self._release((holder.namespace, proof.order), holder)


def own_authorization(order: ACMEOrder, position: int) -> Authorization | None:
    """The authorization at `position`, if it was proven for this order and not before it."""
    if not 0 <= position < len(order.status.authorizations):
        return None
    if any(each.authorization == position for each in order.spec.authorized):
        return None
    return order.status.authorizations[position]


def _authorizations(order: ACMEOrder) -> Iterator[tuple[Holder, ProvenAuthorization]]:
    """What the order's own authorizations prove: never what it relies on itself, nor what was taken without proof."""
    borrowed = {each.authorization for each in order.spec.authorized}
    for position, (identifier, authorization) in enumerate(
        zip(order.spec.identifiers, order.status.authorizations, strict=False)
    ):
        if position in borrowed or authorization.state != "valid":
            continue
        proof = next((each for each in authorization.challenges if each.state == "valid"), None)
        if proof is not None and proof.validated is not None:
            yield (
                Holder.of(order, identifier),
                ProvenAuthorization(order.metadata.name, position, proof.type, proof.validated, authorization.expires),
            )
