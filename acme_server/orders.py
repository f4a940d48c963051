"""Orders (RFC 8555, 7.4): what accounts may do with theirs. Rules are called by name; none of them is made here."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from msgspec.structs import replace

from acme_server.accounts import owner
from acme_server.cache import Key
from acme_server.credentials import Credentials
from acme_server.finalizing import Finalizer
from acme_server.inventory import Certificate
from acme_server.limits import OpenOrders
from acme_server.measures import Measures
from acme_server.population import Population
from acme_server.problems import ACMEError, ProblemType, Refused, Unavailable, not_found
from acme_server.profiles import Profile, Profiles
from acme_server.renewal import Renewals, already_replaced
from acme_server.resuming import Resumption
from acme_server.rules import admission, identifiers, lifetimes, renewal, terms, transitions
from acme_server.store import Store
from acme_server.validation.outcome import ChallengeId
from acme_server.validation.worker import Worker
from acme_server.wire import NewOrder
from kms.clock import Clock, Entropy
from kms.cluster.errors import AlreadyExists
from kms.pki.names import Name
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import LocalRef, ObjectMeta, key_of
from kms.resources.orders import ACCOUNT, ACMEOrder, ChallengeType, OrderSpec, Token

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z2-7]{32}")
_NAME_BYTES = 20
_TOKEN_BYTES = 24
_REPLACEMENTS = 30
"""Orders that may fail one after the other to replace a certificate, before they are removed a day later."""
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
        credentials: Credentials,
        limits: OpenOrders,
        population: Population,
        worker: Worker,
        resumption: Resumption,
        finalizer: Finalizer,
        renewals: Renewals,
        alone: Callable[[], bool],
        clock: Clock,
        entropy: Entropy,
        measures: Measures,
        page: int = PAGE,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._profiles = profiles
        self._credentials = credentials
        self._limits = limits
        self._population = population
        self._worker = worker
        self._resumption = resumption
        self._finalizer = finalizer
        self._renewals = renewals
        self._alone = alone
        self._clock = clock
        self._entropy = entropy
        self._measures = measures
        self._page = page

    async def create(self, profile: Profile, account: ACMEAccount, wanted: NewOrder) -> ACMEOrder:
        """Open an order (M106): one write.

        Raises Refused for identifiers that the profile never certifies (M107), dates that it does not honour (M108),
        too many open orders, a suspended credential, a certificate that it cannot replace and terms of service that
        changed (M86); and Unavailable.
        """
        try:
            self._credentials.admit(account)
            await self.require_agreement(profile, account)
            names = identifiers.normalised(wanted.identifiers)
            admission.admit_names(names, profile, self._credentials.narrowing(account), self._types(profile))
            now = self._clock()
            dates = lifetimes.requested(wanted.not_before, wanted.not_after, profile, now=now)
            predecessor = self._predecessor(profile, account, wanted, names)
            if predecessor is None:  # renewals are not to be kept waiting (ARI-M11)
                self._limits.admit(profile.namespace, account.metadata.name)
                limit = profile.acme.maximum_orders
                self._population.admit(profile, limit=limit, field="spec.enrollment.acme.maximumOrders")
        except Refused as refused:
            self._measures.order("refused")
            logger.info(
                "order refused",
                extra={"account": account.metadata.name, "profile": "/".join(profile.key), "error": str(refused)},
            )
            raise
        order = self._order(profile, account, names, dates, now=now)
        order = await (self._store.add(order) if predecessor is None else self._replacing(predecessor, order, wanted))
        if profile.acme.ownership_validation == "Skipped" and account.spec.external_account is not None:
            order = await self._store.change(order, partial(transitions.preauthorized, now=now))
        self._measures.order("created")
        logger.info(
            "order created",
            extra={
                "order": order.metadata.name,
                "account": account.metadata.name,
                "profile": "/".join(profile.key),
                "names": ",".join(name.value for name in names),
            },
        )
        return order

    def _predecessor(
        self, profile: Profile, account: ACMEAccount, wanted: NewOrder, names: Sequence[Name]
    ) -> Certificate | None:
        if wanted.replaces is None:
            return None
        return self._renewals.predecessor(profile, account, wanted.replaces, names)

    async def _replacing(self, predecessor: Certificate, order: ACMEOrder, wanted: NewOrder) -> ACMEOrder:
        """Open the order as the one that replaces the certificate: still one write, and etcd lets only one succeed.

        Raises Refused: alreadyReplaced unless those before it have become invalid (ARI-M8, ARI-M10).
        """
        for attempt in range(_REPLACEMENTS):
            meta = replace(order.metadata, name=renewal.successor_name(predecessor, attempt))
            try:
                return await self._store.add(
                    replace(order, metadata=meta, spec=replace(order.spec, replaces=wanted.replaces))
                )
            except AlreadyExists:
                existing = await self._store.fresh(*key_of(replace(order, metadata=meta)))
            if existing is None:
                raise Unavailable("The order that replaces the certificate is being removed at this moment.")
            if transitions.expired(existing, now=self._clock()).status.state != "invalid":
                raise already_replaced()
        raise Refused(
            ProblemType.MALFORMED, f"replaces: {_REPLACEMENTS} orders have failed to replace the certificate."
        )

    def _order(
        self,
        profile: Profile,
        account: ACMEAccount,
        names: Sequence[Name],
        dates: tuple[datetime | None, datetime | None],
        *,
        now: datetime,
    ) -> ACMEOrder:
        not_before, not_after = dates
        return ACMEOrder(
            metadata=ObjectMeta(
                namespace=profile.namespace,
                name=base64.b32encode(self._entropy(_NAME_BYTES)).decode().lower(),
                labels={ACCOUNT: account.metadata.name},
                owner_references=(owner(profile),),
            ),
            spec=OrderSpec(
                account_ref=LocalRef(name=account.metadata.name),
                profile_ref=LocalRef(name=profile.name),
                identifiers=tuple(identifiers.identifier_of(each) for each in names),
                expires=lifetimes.order_expires(profile, now=now),
                not_before=not_before,
                not_after=not_after,
                tokens=self._tokens(profile, names),
            ),
        )

    def _types(self, profile: Profile) -> tuple[ChallengeType, ...]:
        """The challenges that are offered: those of the profile that can be validated here (SEC50)."""
        return tuple(each for each in profile.acme.challenges if self._worker.validates(each))

    def _tokens(self, profile: Profile, names: Sequence[Name]) -> tuple[Token, ...]:
        """A token of 192 bits for every challenge that is offered for a name (M146, SEC47)."""
        return tuple(
            Token(
                authorization=position,
                type=type_,
                token=base64.urlsafe_b64encode(self._entropy(_TOKEN_BYTES)).decode(),
            )
            for position, name in enumerate(names)
            for type_ in admission.challenges_for(name, self._types(profile))
        )

    async def get(self, profile: Profile, account: ACMEAccount, order_id: str, *, fresh: bool = False) -> ACMEOrder:
        """The account's order of that id, as this replica knows it or, if `fresh`, as it is now.

        Raises Refused (404), the same for an order that does not exist and for one of somebody else (SEC03).
        """
        order = None
        if _NAME.fullmatch(order_id):
            read = self._store.fresh if fresh else self._store.get
            order = await read(profile.namespace, order_id)
        if (
            order is None
            or order.spec.profile_ref.name != profile.name
            or order.spec.account_ref.name != account.metadata.name
        ):
            raise not_found()
        return order

    async def require_agreement(self, profile: Profile, account: ACMEAccount) -> None:
        """Raise Refused (userActionRequired) where the account has to agree to new terms first (M86).

        The cache never decides that: another replica may have taken the agreement. Raises Unavailable too.
        """
        if terms.outdated(profile.acme, account):
            current = await self._accounts.fresh(*key_of(account))
            terms.require_current(profile.acme, current or account)

    async def page_of(self, account: ACMEAccount, cursor: str = "") -> tuple[tuple[str, ...], str]:
        """The ids of some of the account's orders, without those that became invalid, and where the list goes on (M54).

        `cursor` is where an earlier page said so; "" in the answer: it has ended. It is the API server's own, and says
        nothing about whose orders are listed: that is fixed here (M55). Raises Refused (404) for a cursor that is too
        old or was made up, and Unavailable.
        """
        labels = f"{ACCOUNT}={account.metadata.name}"
        orders, following = await self._store.page(
            account.metadata.namespace, labels=labels, limit=self._page, token=cursor
        )
        return tuple(each.metadata.name for each in orders if each.status.state != "invalid"), following

    async def respond(self, order: ACMEOrder, position: int, type_: str) -> ACMEOrder:
        """The client has provided for the challenge: validate it in the background. Nothing is written.

        A challenge that is settled or being validated elsewhere stays as it is (M133). Raises Refused (404) where the
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
            and (challenge.state == "pending" or self._resumption.is_lost(challenge))
        )

    async def settled(self, order: ACMEOrder, *, position: int | None = None) -> ACMEOrder:
        """How the order stands, after waiting a moment for what is under way (M132); lost work is taken up again.

        With `position` the client looks at one authorization. While that is not answered yet there is nothing to wait
        for, and no reason to store early what the others have come to: the client is on its way to answer them all.
        In an open state the answer is read live where other replicas may have moved on.
        """
        if position is None or any(id_.position == position for id_ in self._worker.running(order)):
            await self._worker.settle(order)
        order = await self._stored(order)
        if order.status.state in transitions.OPEN_STATES and not self._alone():
            order = await self._stored(order, fresh=True)
        return await self.current(order)

    async def current(self, order: ACMEOrder) -> ACMEOrder:
        """The order after everything that time alone does to it: it expires, and what a dead server left is resumed."""
        order = await self._ended_in_time(order)
        if order.status.state == "processing":
            profile = self._profiles.of(order.metadata.namespace, order.spec.profile_ref.name)
            order = await self._finalizer.resumed(profile, order)
        elif order.status.state == "pending":
            await self._resume(order)
        return self._shown(order)

    async def finish(self, key: Key) -> None:
        """Go on with an order that was left in processing, if it still is (SEC34)."""
        try:
            order = await self._store.fresh(*key)
            if order is not None:
                await self.current(order)
        except ACMEError as error:
            logger.warning("order cannot be finished", extra={"order": key[1], "error": str(error)})

    async def _resume(self, order: ACMEOrder) -> None:
        for id_, quiet in self._resumption.of(order, self._worker.running(order)):
            try:
                self._worker.start(order, id_, await self._thumbprint(order), quiet=quiet)
            except Unavailable as error:
                logger.info("validation is not resumed", extra={"order": order.metadata.name, "error": str(error)})

    async def finalize(self, profile: Profile, account: ACMEAccount, order: ACMEOrder, csr_der: bytes) -> ACMEOrder:
        """Accept the CSR and issue (RFC 8555, 7.4); see Finalizer.finalize."""
        self._credentials.admit(account)
        if order.status.state == "pending":
            await self._worker.settle(order)
        return await self._finalizer.finalize(profile, account, order, csr_der)

    async def deactivate_authorization(self, order: ACMEOrder, position: int) -> ACMEOrder:
        """Give up an authorization (RFC 8555, 7.5.2). Raises Refused (404) where there is none at that position."""
        if not 0 <= position < len(order.status.authorizations):
            raise not_found()
        changed = await self._store.change(
            order, partial(transitions.deactivated, position=position, now=self._clock())
        )
        return self._shown(changed)

    async def _stored(self, order: ACMEOrder, *, fresh: bool = False) -> ACMEOrder:
        read = self._store.fresh if fresh else self._store.get
        stored = await read(*key_of(order))
        if stored is None:
            raise not_found()
        return stored

    async def _ended_in_time(self, order: ACMEOrder) -> ACMEOrder:
        now = self._clock()
        if transitions.expired(order, now=now) == order:
            return order
        return await self._store.change(order, partial(transitions.expired, now=now))

    async def _thumbprint(self, order: ACMEOrder) -> str:
        account = await self._accounts.get(order.metadata.namespace, order.spec.account_ref.name)
        if account is None:
            raise not_found()
        return account.thumbprint

    def _shown(self, order: ACMEOrder) -> ACMEOrder:
        return transitions.shown_as_running(order, self._worker.running(order))


def _challenge(order: ACMEOrder, position: int, type_: str) -> ChallengeId:
    """The challenge of that type at that position. Raises Refused (404) where there is none (SEC02)."""
    if 0 <= position < len(order.status.authorizations):
        for each in order.status.authorizations[position].challenges:
            if each.type == type_:
                return ChallengeId(position, each.type)
    raise not_found()
