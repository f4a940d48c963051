"""The operations on orders (RFC 8555, 7.4). The rules are in the modules that this one calls."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial

from acme_server.accounts.eab_credentials import EABCredentials
from acme_server.accounts.transitions import require_valid
from acme_server.model import Caller, ChallengeId
from acme_server.orders import issuance_waiting, transitions
from acme_server.orders.authorization_reuse import AuthorizationReuse
from acme_server.orders.external_issuance import ExternalIssuance
from acme_server.orders.finalize import OrderFinalization
from acme_server.orders.new_order import NewOrders
from acme_server.orders.recovery import Recovery
from acme_server.payloads import NewAuthorization, NewOrder
from acme_server.problems import ACMEError, NotFound, Refused, Unavailable
from acme_server.profiles import NotReady, Profiles
from acme_server.state.cache import Key
from acme_server.state.store import Store
from acme_server.state.turns import Turns
from acme_server.validation.worker import Worker
from kms.clock import Clock
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import key_of
from kms.resources.orders import ACCOUNT, ACMEOrder, Challenge, challenge_of

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z2-7]{32}")
PAGE = 100
"""Orders on one page of an account's list."""


class Orders:
    """The orders of all profiles."""

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
        external: ExternalIssuance,
        authorization_reuse: AuthorizationReuse,
        turns: Turns,
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
        self._external = external
        self._authorization_reuse = authorization_reuse
        self._turns = turns
        self._clock = clock
        self._page = page

    async def create(self, caller: Caller, wanted: NewOrder) -> ACMEOrder:
        """Create an order; see NewOrders.create."""
        return await self._new_orders.create(caller, wanted)

    async def preauthorize(self, caller: Caller, wanted: NewAuthorization) -> ACMEOrder:
        """Create an authorization before any order; see NewOrders.preauthorize."""
        return await self._new_orders.preauthorize(caller, wanted)

    async def get(self, caller: Caller, order_id: str, *, live: bool = False) -> ACMEOrder:
        """The caller's order of that id, from the cache or, if `live`, from the API server.

        Raises NotFound, also for the orders of other accounts, and Unavailable.
        """
        order = await self._load(caller, order_id, live=live)
        if order.spec.preauthorization:
            raise NotFound
        return order

    async def get_with_authorization(self, caller: Caller, order_id: str, position: int) -> ACMEOrder:
        """The caller's order, or pre-authorization, that has an authorization at that position.

        Raises NotFound also where the order reuses an earlier authorization, which has its own URL; and Unavailable.
        """
        order = await self._load(caller, order_id)
        elsewhere = {each.authorization for each in order.spec.authorized if each.order is not None}
        if position in elsewhere or not 0 <= position < len(order.status.authorizations):
            raise NotFound
        return order

    async def _load(self, caller: Caller, order_id: str, *, live: bool = False) -> ACMEOrder:
        profile, order = caller.profile, None
        if _NAME.fullmatch(order_id):
            if not live:
                await self._store.catch_up(profile.namespace)
            read = self._store.read_live if live else self._store.get
            order = await read(profile.namespace, order_id)
        if (
            order is None
            or order.spec.profile_ref.name != profile.name
            or order.spec.account_ref.name != caller.account.metadata.name
        ):
            raise NotFound
        return order

    async def list_page(self, account: ACMEAccount, cursor: str = "") -> tuple[tuple[str, ...], str]:
        """The ids of a page of the account's orders, without invalid ones, and the cursor of the next page ("": none).

        Cursors are the API server's. They do not say whose orders are listed, so a cursor of another account reveals
        nothing. Raises NotFound for a cursor that has expired or never existed, and Unavailable.
        """
        async with self._turns.take(account):
            orders, following = await self._store.metadata_page(
                account.metadata.namespace,
                labels=f"{ACCOUNT}={account.metadata.name}",
                fields="status.state!=invalid",
                limit=self._page,
                token=cursor,
            )
        return tuple(each.name for each in orders), following

    async def respond(self, caller: Caller, order: ACMEOrder, position: int, type_: str) -> ACMEOrder:
        """Start to validate the challenge, in the background and without a write.

        A challenge that is finished, or being validated by another replica, is not started again. Raises NotFound if
        the order has no such challenge, and Unavailable.
        """
        order = await self._expire(order)
        challenge = _challenge(order, position, type_)
        if self._can_start(order, position, challenge):
            self._worker.start(order, ChallengeId(position, challenge.type), caller.account.thumbprint)
        return self._show(order)

    def _can_start(self, order: ACMEOrder, position: int, challenge: Challenge) -> bool:
        authorization = order.status.authorizations[position]
        return (
            order.status.state == "pending"
            and authorization.state == "pending"
            and (challenge.state == "pending" or self._recovery.is_lost(challenge))
        )

    async def poll(self, order: ACMEOrder, *, position: int | None = None) -> ACMEOrder:
        """The latest version of an order that its client polls, after a short wait for running validations.

        With `position`, the client polls one authorization. If that is not being validated, the order does not wait:
        the client has not answered all challenges yet, and the results of an order are stored together. An order that
        may have changed is never older than what this client has seen or done at another replica.
        """
        waits = position is None or position in {id_.position for id_ in self._worker.running_challenges(order)}
        if waits and await self._worker.settle(order):
            order = await self._reload(order, self._store.get)
        if _may_change(order, position):
            order = await self._reload(order, self._store.recent)
        return await self.refresh(order)

    async def refresh(self, order: ACMEOrder) -> ACMEOrder:
        """Apply what happens to an order without a request: it expires, loses authorizations, resumes lost work."""
        order = await self._expire(order)
        if order.spec.authorized and order.status.state in transitions.OPEN_STATES:
            order = await self._relinquish_lost(order)
        if order.status.state == "processing" and order.status.issuance is not None:
            self._external.resume(order)
        elif order.status.state == "processing":
            try:
                profile = self._profiles.of(order.metadata.namespace, order.spec.profile_ref.name)
            except NotReady:
                return self._show(order)  # it goes on when the profile is ready again
            order = await self._finalization.resume(profile, order)
        elif order.status.state == "pending":
            await self._restart_lost_validations(order)
        return self._show(order)

    async def finish(self, key: Key) -> None:
        """Continue an order that was left in processing, if it still exists."""
        if self._external.is_working_at(key):
            return
        try:
            order = await self._store.read_live(*key)
            if order is not None:
                await self.refresh(order)
        except ACMEError as error:
            logger.warning("unfinished order cannot be continued", extra={"order": key[1], "error": str(error)})

    async def _restart_lost_validations(self, order: ACMEOrder) -> None:
        """Nothing is restarted for an account that may not act, or while the profile is not ready."""
        discarded = ((id_, False) for id_ in self._worker.take_discarded(order))
        for id_, quiet in (*discarded, *self._recovery.find_lost(order, self._worker.running_challenges(order))):
            try:
                self._profiles.of(order.metadata.namespace, order.spec.profile_ref.name)
                self._worker.start(order, id_, await self._thumbprint(order), quiet=quiet)
            except (Refused, Unavailable) as error:
                logger.info("validation cannot be restarted", extra={"order": order.metadata.name, "error": str(error)})

    async def finalize(self, caller: Caller, order: ACMEOrder, csr_der: bytes) -> ACMEOrder:
        """Accept the CSR and issue (RFC 8555, 7.4); see OrderFinalization.finalize."""
        await self._credentials.admit(caller.account, caller.profile.acme)
        if order.status.state == "pending":
            await self._worker.settle(order)
        return await self._finalization.finalize(caller, order, csr_der)

    def retry_after(self, order: ACMEOrder) -> int:
        """The seconds after which a client should ask again about an order in processing."""
        if order.status.issuance is None or order.status.accepted is None:
            return 1
        return issuance_waiting.retry_after(self._clock() - order.status.accepted)

    async def deactivate_authorization(self, order: ACMEOrder, position: int) -> ACMEOrder:
        """Deactivate an authorization (RFC 8555, 7.5.2). Raises Unavailable."""
        changed = await self._store.change(
            order, partial(transitions.deactivated, position=position, now=self._clock())
        )
        return self._show(changed)

    async def _reload(self, order: ACMEOrder, read: Callable[[str, str], Awaitable[ACMEOrder | None]]) -> ACMEOrder:
        stored = await read(*key_of(order))
        if stored is None:
            raise NotFound
        return stored

    async def _expire(self, order: ACMEOrder) -> ACMEOrder:
        now = self._clock()
        if transitions.expired(order, now=now) == order:
            return order
        return await self._store.change(order, partial(transitions.expired, now=now))

    async def _relinquish_lost(self, order: ACMEOrder) -> ACMEOrder:
        lost = await self._authorization_reuse.find_known_lost(order)
        if not lost:
            return order
        return await self._store.change(order, partial(transitions.relinquished, lost=lost, now=self._clock()))

    async def _thumbprint(self, order: ACMEOrder) -> str:
        """The account's key, if the account may act. Raises Refused and Unavailable."""
        namespace = order.metadata.namespace
        account = await self._accounts.get(namespace, order.spec.account_ref.name)
        acme = self._profiles.enrollment(namespace, order.spec.profile_ref.name)
        if account is None or acme is None:
            raise NotFound
        await self._credentials.admit(account, acme)
        return require_valid(account).thumbprint

    def _show(self, order: ACMEOrder) -> ACMEOrder:
        return transitions.shown_as_running(order, self._worker.running_challenges(order))


def _may_change(order: ACMEOrder, position: int | None) -> bool:
    """Whether the order or, with `position`, one of its authorizations may be in another state by now."""
    if order.status.state in transitions.OPEN_STATES:
        return True
    return position is not None and order.status.authorizations[position].state in {"pending", "valid"}


def _challenge(order: ACMEOrder, position: int, type_: str) -> Challenge:
    found = challenge_of(order, position, type_)
    if found is None:
        raise NotFound
    return found
