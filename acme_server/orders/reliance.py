"""Whether what an order relies on still holds: authorizations of earlier orders, and the credential of its account.

The memory of proofs answers where this server is alone, so a certificate costs no read. Where other replicas may have
acted, and before any answer of "no", the earlier orders are read live, each once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping

from acme_server.orders import authorization_reuse
from acme_server.profiles import Profile
from acme_server.state.authorizations import Authorizations, Holder
from acme_server.state.store import Store
from kms.clock import Clock
from kms.resources.accounts import ACMEAccount
from kms.resources.orders import ACMEOrder, AuthorizationState, Authorized


class AuthorizationReuse:
    """Looks at the authorizations behind `spec.authorized`."""

    def __init__(self, *, orders: Store[ACMEOrder], authorizations: Authorizations, clock: Clock) -> None:
        self._orders = orders
        self._authorizations = authorizations
        self._clock = clock

    async def lost(self, order: ACMEOrder, profile: Profile, account: ACMEAccount) -> Mapping[int, AuthorizationState]:
        """The order's authorizations that allow no certificate any more, by position, and what became of them.

        Raises Unavailable.
        """
        trusted = authorization_reuse.is_trusted(profile, account)
        given: dict[int, AuthorizationState] = {
            each.authorization: "revoked" for each in order.spec.authorized if each.order is None and not trusted
        }
        return given | await self._reused(order, self._in_doubt(order, known_suffices=self._orders.is_sole_writer()))

    async def noticed(self, order: ACMEOrder) -> Mapping[int, AuthorizationState]:
        """Those of earlier orders that are lost as far as this replica has heard: for answers to who looks at it."""
        return await self._reused(order, self._in_doubt(order, known_suffices=True))

    def _in_doubt(self, order: ACMEOrder, *, known_suffices: bool) -> tuple[Authorized, ...]:
        return tuple(
            each
            for each in order.spec.authorized
            if each.order is not None and not (known_suffices and self._is_known(order, each))
        )

    def _is_known(self, order: ACMEOrder, each: Authorized) -> bool:
        holder = Holder.of(order, order.spec.identifiers[each.authorization])
        return (
            each.order is not None
            and each.position is not None
            and (self._authorizations.holds(holder, each.order, each.position))
        )

    async def _reused(self, order: ACMEOrder, in_doubt: Collection[Authorized]) -> dict[int, AuthorizationState]:
        originals = await self._read(order, {each.order for each in in_doubt if each.order is not None})
        now = self._clock()
        states = {
            each.authorization: authorization_reuse.standing(order, each, originals.get(each.order or ""), now=now)
            for each in in_doubt
        }
        return {position: state for position, state in states.items() if state != "valid"}

    async def _read(self, order: ACMEOrder, names: Iterable[str]) -> Mapping[str, ACMEOrder | None]:
        wanted = tuple(names)
        namespace = order.metadata.namespace
        found = await asyncio.gather(*(self._orders.fresh(namespace, name) for name in wanted))
        return dict(zip(wanted, found, strict=True))
