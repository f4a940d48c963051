"""Revocations of certificates that an external CA has issued: told to the CA, or to its administrators.

The revocation is recorded first, so that keys are barred and clients renew at once. What the CA has not confirmed is
repeated by the server that leads, until the CA has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias

from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.certificates.chains import leaf_of
from acme_server.orders import transitions
from acme_server.problems import ProblemType, Refused, Unavailable
from acme_server.state.index import Index, View
from acme_server.state.store import Store, Vanished
from kms.clock import Clock
from kms.cluster.errors import ClusterError
from kms.issuers.base import IssuerNotReady
from kms.issuers.remote import RemoteIssuers, authority_type
from kms.resources.authorities import CertificateAuthority
from kms.resources.meta import Key
from kms.resources.orders import ACMEOrder, AskedAuthority

logger = logging.getLogger(__name__)

Mode: TypeAlias = Literal["Refuse", "Record", "Propagate"]
"""What a CA makes of revocations; spec.external.revocation."""

_NOT_TAKEN = "This CA takes no revocations by ACME; the request was recorded and its administrators have been told."
_NOT_CONFIRMED = "The issuing CA has not confirmed the revocation yet; the server repeats it until the CA does."


class NotTaken(Refused):
    """The CA takes no revocations by ACME; the request is recorded."""

    def __init__(self) -> None:
        super().__init__(ProblemType.SERVER_INTERNAL, _NOT_TAKEN)


def mode_of(asked: AskedAuthority, authority: CertificateAuthority | None) -> Mode:
    """What the CA that was asked for a certificate makes of its revocation.

    One that was deleted, or is of another type by now, cannot be told.
    """
    if authority is None or authority.spec.external is None or authority_type(authority) != asked.type:
        return "Refuse"
    default: Mode = "Propagate" if asked.type == "Vault" else "Refuse"
    return authority.spec.external.revocation or default


class Unconfirmed(View[ACMEOrder]):
    """The orders whose certificate is revoked here and, as far as its CA has said, not there."""

    def __init__(self, index: Index[ACMEOrder]) -> None:
        super().__init__(index)
        self._asked: dict[Key, AskedAuthority] = {}

    def put(self, key: Key, order: ACMEOrder) -> None:
        """Remember the CA of the order."""
        status = order.status
        if status.authority is not None and status.revocation is not None and status.revocation.propagated is None:
            self._asked[key] = status.authority
        else:
            self._asked.pop(key, None)

    def remove(self, key: Key) -> None:
        """Forget the order."""
        self._asked.pop(key, None)

    def obscure(self, key: Key) -> None:
        """Leave the order as it is known: it cannot be read, so nothing can be told."""

    def items(self) -> tuple[tuple[Key, AskedAuthority], ...]:
        """The orders, by key, with the CA of each."""
        return tuple(self._asked.items())


class Propagation:
    """Tells CAs what was revoked. `find_authority` returns a CertificateAuthority by namespace and name.

    In seconds: `patience` is how long a client waits for the CA, and `every` the time between two rounds of repetition.
    A round tells up to `at_once` CAs at the same time, and none of them for much longer than `every`.
    """

    def __init__(
        self,
        *,
        orders: Store[ACMEOrder],
        order_index: Index[ACMEOrder],
        issuers: RemoteIssuers,
        find_authority: Callable[[str, str], CertificateAuthority | None],
        clock: Clock,
        patience: float = 10.0,
        every: float = 30.0,
        at_once: int = 32,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._orders = orders
        self._index = order_index
        self._issuers = issuers
        self._find_authority = find_authority
        self._clock = clock
        self._patience = patience
        self._every = every
        self._at_once = at_once
        self._sleep = sleep
        self._unconfirmed = Unconfirmed(order_index)

    def __len__(self) -> int:
        """The number of revocations that somebody still has to carry out at a CA."""
        return sum(self._mode(key, asked) != "Record" for key, asked in self._unconfirmed.items())

    def mode(self, order: ACMEOrder) -> Mode | None:
        """What the CA of the order makes of revocations; None: it is one of ours."""
        asked = order.status.authority
        return None if asked is None else self._mode((order.metadata.namespace, asked.name), asked)

    def is_open(self, order: ACMEOrder) -> bool:
        """Whether a revocation that is recorded has yet to be carried out at the CA."""
        status = order.status
        is_recorded = status.revocation is not None and status.revocation.propagated is None
        return is_recorded and self.mode(order) in {"Propagate", "Refuse"}

    async def propagate(self, order: ACMEOrder) -> None:
        """Tell the CA of the order that its certificate is revoked, if that is recorded and the CA takes it.

        Raises NotTaken if it takes none, and Unavailable if it has not confirmed it.
        """
        mode = self.mode(order)
        if not self.is_open(order):
            return
        if mode == "Refuse":
            raise NotTaken
        try:
            async with asyncio.timeout(self._patience):
                await self._tell(order)
        except (IssuerNotReady, TimeoutError) as error:
            logger.warning(
                "revocation not confirmed", extra=_fields(order) | {"error": str(error) or "no answer in time"}
            )
            raise Unavailable(_NOT_CONFIRMED, int(self._every)) from None

    async def run(self, is_leading: Callable[[], bool]) -> None:
        """Repeat what CAs have not confirmed, while this replica leads; never returns."""
        while True:
            await self._sleep(self._every)
            if self._index.complete and is_leading():
                await self.repeat()

    async def repeat(self) -> None:
        """Tell each CA what it has not confirmed; several at once, as one that answers slowly must not delay others.

        One that does not answer is left alone until the next round.
        """
        open_: dict[Key, list[Key]] = {}
        for key, asked in self._unconfirmed.items():
            if self._mode(key, asked) == "Propagate":
                open_.setdefault((key[0], asked.name), []).append(key)
        turns = asyncio.Semaphore(self._at_once)
        await asyncio.gather(*(self._repeat_at(authority, keys, turns) for authority, keys in open_.items()))

    async def _repeat_at(self, authority: Key, keys: Sequence[Key], turns: asyncio.Semaphore) -> None:
        async with turns:
            ends = asyncio.get_running_loop().time() + self._every
            for key in keys:
                try:
                    order = await self._orders.get(*key)
                    if order is not None and self.is_open(order):
                        await self._tell(order)
                except (IssuerNotReady, ClusterError, Unavailable, Vanished) as error:
                    extra = {"order": key[1], "authority": "/".join(authority), "error": str(error)}
                    logger.warning("revocation not confirmed", extra=extra)
                    return
                if asyncio.get_running_loop().time() >= ends:  # the next round goes on
                    return

    async def _tell(self, order: ACMEOrder) -> None:
        """Raises IssuerNotReady, Unavailable and Vanished."""
        asked, authority = order.status.authority, None
        if asked is not None:
            authority = self._find_authority(order.metadata.namespace, asked.name)
        if authority is None or order.status.certificate is None:
            raise IssuerNotReady("the CertificateAuthority does not exist any more")
        leaf = leaf_of(order, order.status.certificate).public_bytes(Encoding.DER)
        if not await self._issuers.of(authority).revoke(leaf):
            raise IssuerNotReady("the CA takes no revocations")
        await self._orders.change(order, partial(transitions.propagated, now=self._clock()))
        logger.info("revocation confirmed by the CA", extra=_fields(order))

    def _mode(self, key: Key, asked: AskedAuthority) -> Mode:
        return mode_of(asked, self._find_authority(key[0], asked.name))


def _fields(order: ACMEOrder) -> dict[str, str | None]:
    asked = order.status.authority
    return {
        "order": order.metadata.name,
        "authority": f"{order.metadata.namespace}/{asked.name}" if asked is not None else None,
        "serial": order.status.serial_number,
    }
