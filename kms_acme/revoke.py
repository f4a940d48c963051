"""`kms-acme revoke`: revokes certificates as an administrator, with the rights of the kubeconfig.

It writes what the server would write: the same transition, on the order as it is, guarded by its resourceVersion. So it
works without a server, and every server hears of it from the API server and puts it on the CA's revocation list.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from acme_server.orders import transitions
from acme_server.orders.lifetimes import is_over
from acme_server.problems import ProblemType, Refused
from kms.clock import Clock
from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.cluster.retry import attempts
from kms.pki.crl import KEY_COMPROMISE
from kms.resources.kinds import ORDERS
from kms.resources.meta import key_of
from kms.resources.orders import ACCOUNT, ACMEOrder

_AT_ONCE = 8
"""Orders that are written at the same time."""
_SERIAL = re.compile(r"(?:0x)?([0-9a-f]{1,40})")


class NotRevoked(Exception):
    """What was asked for cannot be done; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be revoked: exactly one member is set. `serial` may have a namespace, the others always have one."""

    serial: tuple[str | None, str] | None = None
    order: tuple[str, str] | None = None
    account: tuple[str, str] | None = None


def serial_number(text: str) -> str:
    """A serial number as orders keep it, from what people copy out of other programs. Raises ValueError."""
    match = _SERIAL.fullmatch(text.replace(":", "").lower())
    if match is None or not (digits := match.group(1).lstrip("0")):
        raise ValueError(f"{text!r} is not a serial number; write it in hexadecimal, with or without colons")
    return digits


async def certified(cluster: Cluster, target: Target) -> tuple[ACMEOrder, ...]:
    """The orders of the target that have a certificate. Raises NotRevoked where there is none, and ClusterError."""
    if target.order is not None:
        try:
            found = [await cluster.get(ORDERS, *target.order)]
        except errors.NotFound:
            raise NotRevoked(f"there is no ACMEOrder {'/'.join(target.order)}") from None
    elif target.account is not None:
        namespace, name = target.account
        found = [each async for each in _listed(cluster, namespace, labels=f"{ACCOUNT}={name}")]
    else:
        namespace_or_none, serial = target.serial or (None, "")
        found = [each async for each in _listed(cluster, namespace_or_none, fields=f"status.serialNumber={serial}")]
    having = tuple(each for each in found if each.status.certificate is not None)
    if not having:
        raise NotRevoked("no certificate was found for that; `kubectl get acmeorders -A -o wide` shows all of them")
    return having


async def _listed(
    cluster: Cluster, namespace: str | None, *, labels: str = "", fields: str = ""
) -> AsyncIterator[ACMEOrder]:
    async for page in cluster.list_pages(ORDERS, namespace, labels=labels, fields=fields):
        for each in page.items:
            yield each


def revocable(orders: Sequence[ACMEOrder], reason: str, *, now: datetime) -> tuple[ACMEOrder, ...]:
    """Those of the orders whose certificate is to be revoked: not those that were, and of the expired none.

    But for keyCompromise the expired too, for that bars their keys from new certificates.
    """
    return tuple(
        each
        for each in orders
        if each.status.revocation is None
        and (reason == KEY_COMPROMISE or each.status.not_after is None or not is_over(each.status.not_after, now=now))
    )


async def revoke_all(
    cluster: Cluster,
    orders: Sequence[ACMEOrder],
    reason: str,
    *,
    clock: Clock,
    tell: Callable[[ACMEOrder, str | None], None],
) -> int:
    """Revoke the certificates of these orders; `tell` hears of each, with what went wrong. How many went wrong."""
    waiting = iter(orders)
    failures = 0

    async def work() -> None:
        nonlocal failures
        for order in waiting:
            try:
                await _revoke(cluster, order, reason, clock=clock)
            except (errors.ClusterError, NotRevoked) as error:
                failures += 1
                tell(order, str(error))
            else:
                tell(order, None)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return failures


async def _revoke(cluster: Cluster, order: ACMEOrder, reason: str, *, clock: Clock) -> None:
    """Write one revocation. That somebody else has written one meanwhile is no failure."""
    transition = partial(transitions.revoked, reason=reason, now=clock())
    async for _ in attempts():
        try:
            await cluster.replace_status(ORDERS, transition(order))
        except Refused as refused:
            if refused.type is ProblemType.ALREADY_REVOKED:
                return
            raise NotRevoked("the order has no certificate any more") from None
        except errors.Conflict:
            order = await _same(cluster, order)
        else:
            return
    raise NotRevoked("too many changes to the order at once; try again")


async def _same(cluster: Cluster, order: ACMEOrder) -> ACMEOrder:
    current = await cluster.get(ORDERS, *key_of(order))
    if current.metadata.uid != order.metadata.uid:
        raise NotRevoked("the order is gone, another has its name")
    return current
