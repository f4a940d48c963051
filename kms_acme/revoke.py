"""`kms-acme revoke`: revokes certificates as an administrator, with the rights of the kubeconfig's user.

It writes to the API server, not through a server's store: it applies the server's own pure transition to the ACMEOrder
and replaces the status, guarded by resourceVersion. So it works while no server runs. Every server receives the change
from its watch and puts the certificate on the CA's revocation list.
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
from kms.resources.meta import Unreadable, key_of
from kms.resources.orders import ACCOUNT, ACMEOrder

_AT_ONCE = 8
"""Orders that are written at the same time."""
_SERIAL = re.compile(r"(?:0x)?([0-9a-f]{1,40})")


class NotRevoked(Exception):
    """A certificate cannot be revoked, or does not exist; the message says why."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The certificates to revoke: exactly one member is set. `serial` may have a namespace, the others always do."""

    serial: tuple[str | None, str] | None = None
    order: tuple[str, str] | None = None
    account: tuple[str, str] | None = None


def serial_number(text: str) -> str:
    """The serial number as orders store it, from the spelling of other programs. Raises ValueError."""
    match = _SERIAL.fullmatch(text.replace(":", "").lower())
    if match is None or not (digits := match.group(1).lstrip("0")):
        raise ValueError(f"{text!r} is not a serial number; write it in hexadecimal, with or without colons")
    return digits


async def find_orders(
    cluster: Cluster, selection: Selection, *, on_unreadable: Callable[[Unreadable], None]
) -> tuple[ACMEOrder, ...]:
    """The selected orders that have a certificate. Raises NotRevoked if there is none, and ClusterError.

    `on_unreadable` is called with each selected order that does not fit its model: it may have a certificate.
    """
    if selection.order is not None:
        try:
            found = [await cluster.get(ORDERS, *selection.order)]
        except errors.NotFound:
            raise NotRevoked(f"there is no ACMEOrder {'/'.join(selection.order)}") from None
    elif selection.account is not None:
        namespace, name = selection.account
        found = [each async for each in _list(cluster, namespace, on_unreadable, labels=f"{ACCOUNT}={name}")]
    else:
        namespace_or_none, serial = selection.serial or (None, "")
        fields = f"status.serialNumber={serial}"
        found = [each async for each in _list(cluster, namespace_or_none, on_unreadable, fields=fields)]
    certified = tuple(each for each in found if each.status.certificate is not None)
    if not certified:
        what = "no such certificate"
        if selection.order is not None:
            what = f"ACMEOrder {'/'.join(selection.order)} has no certificate"
        elif selection.account is not None:
            what = f"no orders of ACMEAccount {'/'.join(selection.account)} have a certificate"
        raise NotRevoked(f"{what}; `kubectl get acmeorders -A -o wide` lists all certificates")
    return certified


async def _list(
    cluster: Cluster,
    namespace: str | None,
    on_unreadable: Callable[[Unreadable], None],
    *,
    labels: str = "",
    fields: str = "",
) -> AsyncIterator[ACMEOrder]:
    async for page in cluster.list_pages(ORDERS, namespace, labels=labels, fields=fields):
        for unreadable in page.unreadable:
            on_unreadable(unreadable)
        for each in page.items:
            yield each


def filter_revocable(orders: Sequence[ACMEOrder], reason: str, *, now: datetime) -> tuple[ACMEOrder, ...]:
    """The orders whose certificate is neither revoked nor expired.

    keyCompromise includes expired ones: it bars their keys from new certificates.
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
    on_done: Callable[[ACMEOrder, str | None], None],
) -> int:
    """Revoke the certificates of these orders and return the number of failures.

    `on_done` is called with each order, and with the error where revoking it failed.
    """
    waiting = iter(orders)
    failures = 0

    async def work() -> None:
        nonlocal failures
        for order in waiting:
            try:
                await _revoke(cluster, order, reason, clock=clock)
            except (errors.ClusterError, NotRevoked) as error:
                failures += 1
                on_done(order, str(error))
            else:
                on_done(order, None)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return failures


async def _revoke(cluster: Cluster, order: ACMEOrder, reason: str, *, clock: Clock) -> None:
    """Write one revocation. An order that was revoked meanwhile is no failure."""
    transition = partial(transitions.revoked, reason=reason, now=clock())
    async for _ in attempts():
        try:
            await cluster.replace_status(ORDERS, transition(order))
        except Refused as refused:
            if refused.type is ProblemType.ALREADY_REVOKED:
                return
            raise NotRevoked("the order no longer has a certificate") from None
        except errors.Conflict:
            order = await _read_again(cluster, order)
        else:
            return
    raise NotRevoked("the order changes too often; try again")


async def _read_again(cluster: Cluster, order: ACMEOrder) -> ACMEOrder:
    current = await cluster.get(ORDERS, *key_of(order))
    if current.metadata.uid != order.metadata.uid:
        raise NotRevoked("the order was deleted, and another one has its name")
    return current
