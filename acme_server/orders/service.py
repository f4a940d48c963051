"""Orders (RFC 8555, 7.4): what accounts may do with theirs. Rules are called by name; none of them is made here."""

from __future__ import annotations

import logging
import re
from functools import partial

from acme_server.accounts.eab_credentials import EABCredentials
from acme_server.api.payloads import NewAuthorization, NewOrder
from acme_server.model import ChallengeId
from acme_server.orders import transitions
from acme_server.orders.finalize import OrderFinalization
from acme_server.orders.new_order import NewOrders
from acme_server.orders.recovery import Recovery
from acme_server.orders.reliance import AuthorizationReuse
from acme_server.problems import ACMEError, NotFound, Unavailable
from acme_server.profiles import Profile, Profiles
from acme_server.state.cache import Key
from acme_server.state.store import Store
from acme_server.validation.worker import Worker
from kms.clock import Clock
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import key_of
from kms.resources.orders import ACCOUNT, ACMEOrder

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z2-7]{32}")
PAGE = 100
"""Orders on one page of an account's list."""


class Orders:
    """The orders of all profiles. Orders that come out of here have their authorizations in place."""

    def __init__(
        self,
        *,
        store: Store[ACMEOrder],
        accounts: Store[ACMEAccount],
        profiles: Profiles,
        credentials: EABCredentials,
        new_orders: NewOrders,
        worker: Worker,
        recovery: Recovery,
        finalization: OrderFinalization,
        authorization_reuse: AuthorizationReuse,
        clock: Clock,
        page: int = PAGE,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._profiles = profiles
        self._credentials = credentials
        self._new_orders = new_orders
        self._worker = worker
        self._recovery = recovery
        self._finalization = finalization
        self._authorization_reuse = authorization_reuse
        self._clock = clock
        self._page = page

    async def create(self, profile: Profile, account: ACMEAccount, wanted: NewOrder) -> ACMEOrder:
        """Open an order; see NewOrders.order."""
        return await self._new_orders.order(profile, account, wanted)

    async def preauthorize(self, profile: Profile, account: ACMEAccount, wanted: NewAuthorization) -> ACMEOrder:
        """Open an authorization before any order; see NewOrders.authorization."""
        return await self._new_orders.authorization(profile, account, wanted)

    async def get(self, profile: Profile, account: ACMEAccount, order_id: str, *, fresh: bool = False) -> ACMEOrder:
        """The account's order of that id, as this replica knows it or, if `fresh`, as it is now.

        Raises NotFound, the same for an order that does not exist and for one of somebody else.
        """
        order = await self._found(profile, account, order_id, fresh=fresh)
        if order.spec.preauthorization:
            raise NotFound
        return order

    async def holding(self, profile: Profile, account: ACMEAccount, order_id: str, position: int) -> ACMEOrder:
        """The account's order, or what newAuthz has made instead, that has an authorization at that position.

        Raises NotFound also where it only relies on one of an earlier order: that has its own URL.
        """
        order = await self._found(profile, account, order_id, fresh=False)
        elsewhere = {each.authorization for each in order.spec.authorized if each.order is not None}
        if position in elsewhere or not 0 <= position < len(order.status.authorizations):
            raise NotFound
        return order

    async def _found(self, profile: Profile, account: ACMEAccount, order_id: str, *, fresh: bool) -> ACMEOrder:
        order = None
        if _NAME.fullmatch(order_id):
            read = self._store.fresh if fresh else self._store.get
            order = await read(profile.namespace, order_id)
        if (
            order is None
            or order.spec.profile_ref.name != profile.name
            or order.spec.account_ref.name != account.metadata.name
        ):
            raise NotFound
        return order

    async def page_of(self, account: ACMEAccount, cursor: str = "") -> tuple[tuple[str, ...], str]:
        """The ids of some of the account's orders, without those that became invalid, and where the list goes on.

        `cursor` is where an earlier page said so; "" in the answer: it has ended. It is the API server's own, and says
        nothing about whose orders are listed: that is fixed here. Raises NotFound for a cursor that is too
        old or was made up, and Unavailable.
        """
        labels = f"{ACCOUNT}={account.metadata.name}"
        orders, following = await self._store.page(
            account.metadata.namespace, labels=labels, limit=self._page, token=cursor
        )
        return tuple(each.metadata.name for each in orders if each.status.state != "invalid"), following

    async def respond(self, order: ACMEOrder, position: int, type_: str) -> ACMEOrder:
        """The client has provided for the challenge: validate it in the background. Nothing is written.

        A challenge that is settled or being validated elsewhere stays as it is. Raises NotFound where the
        order has no such challenge, and Unavailable.
        """
        order = await self._ended_in_time(await self._stored(order))
        id_ = _challenge(order, position, type_)
        if self._answerable(order, id_):
            self._worker.start(order, id_, await self._thumbprint(order))
        return self._shown(order)

    def _answerable(self, order: ACMEOrder, id_: ChallengeId) -> bool:
        authorization = order.status.authorizations[id_.position]
        challenge = next(each for each in authorization.challenges if each.type == id_.type)
        return (
            order.status.state == "pending"
            and authorization.state == "pending"
            and (challenge.state == "pending" or self._recovery.is_lost(challenge))
        )

    async def settled(self, order: ACMEOrder, *, position: int | None = None) -> ACMEOrder:
        """How the order stands, after waiting a moment for what is under way; lost work is taken up again.

        With `position` the client looks at one authorization. While that is not answered yet there is nothing to wait
        for, and no reason to store early what the others have come to: the client is on its way to answer them all.
        What may still change is read live where other replicas may have moved on: an order in an open state, and an
        authorization that its client may have given up.
        """
        if position is None or any(id_.position == position for id_ in self._worker.running(order)):
            await self._worker.settle(order)
        order = await self._stored(order)
        if _may_change(order, position):
            order = await self._stored(order, latest=True)
        return await self.current(order)

    async def current(self, order: ACMEOrder) -> ACMEOrder:
        """The order after everything that happens without it.

        It expires, what it relies on is given up, and what a dead server left is resumed.
        """
        order = await self._still_authorized(await self._ended_in_time(order))
        if order.status.state == "processing":
            profile = self._profiles.of(order.metadata.namespace, order.spec.profile_ref.name)
            order = await self._finalization.resumed(profile, order)
        elif order.status.state == "pending":
            await self._resume(order)
        return self._shown(order)

    async def finish(self, key: Key) -> None:
        """Go on with an order that was left in processing, if it still is."""
        try:
            order = await self._store.fresh(*key)
            if order is not None:
                await self.current(order)
        except ACMEError as error:
            logger.warning("order cannot be finished", extra={"order": key[1], "error": str(error)})

    async def _resume(self, order: ACMEOrder) -> None:
        for id_, quiet in self._recovery.of(order, self._worker.running(order)):
            try:
                self._worker.start(order, id_, await self._thumbprint(order), quiet=quiet)
            except Unavailable as error:
                logger.info("validation is not resumed", extra={"order": order.metadata.name, "error": str(error)})

    async def finalize(self, profile: Profile, account: ACMEAccount, order: ACMEOrder, csr_der: bytes) -> ACMEOrder:
        """Accept the CSR and issue (RFC 8555, 7.4); see OrderFinalization.finalize."""
        self._credentials.admit(account)
        if order.status.state == "pending":
            await self._worker.settle(order)
        return await self._finalization.finalize(profile, account, order, csr_der)

    async def deactivate_authorization(self, order: ACMEOrder, position: int) -> ACMEOrder:
        """Give up an authorization (RFC 8555, 7.5.2). Raises NotFound where there is none at that position."""
        if not 0 <= position < len(order.status.authorizations):
            raise NotFound
        changed = await self._store.change(
            order, partial(transitions.deactivated, position=position, now=self._clock())
        )
        return self._shown(changed)

    async def _stored(self, order: ACMEOrder, *, latest: bool = False) -> ACMEOrder:
        read = self._store.current if latest else self._store.get
        stored = await read(*key_of(order))
        if stored is None:
            raise NotFound
        return stored

    async def _ended_in_time(self, order: ACMEOrder) -> ACMEOrder:
        now = self._clock()
        if transitions.expired(order, now=now) == order:
            return order
        return await self._store.change(order, partial(transitions.expired, now=now))

    async def _still_authorized(self, order: ACMEOrder) -> ACMEOrder:
        if order.status.state not in transitions.OPEN_STATES:
            return order
        lost = await self._authorization_reuse.noticed(order)
        if not lost:
            return order
        return await self._store.change(order, partial(transitions.relinquished, lost=lost, now=self._clock()))

    async def _thumbprint(self, order: ACMEOrder) -> str:
        account = await self._accounts.get(order.metadata.namespace, order.spec.account_ref.name)
        if account is None:
            raise NotFound
        return account.thumbprint

    def _shown(self, order: ACMEOrder) -> ACMEOrder:
        return transitions.shown_as_running(order, self._worker.running(order))


def _may_change(order: ACMEOrder, position: int | None) -> bool:
    """Whether the order or, with `position`, one of its authorizations can be in another state than in this version."""
    if order.status.state in transitions.OPEN_STATES:
        return True
    return position is not None and order.status.authorizations[position].state in {"pending", "valid"}


def _challenge(order: ACMEOrder, position: int, type_: str) -> ChallengeId:
    """The challenge of that type at that position. Raises NotFound where there is none."""
    if 0 <= position < len(order.status.authorizations):
        for each in order.status.authorizations[position].challenges:
            if each.type == type_:
                return ChallengeId(position, each.type)
    raise NotFound
