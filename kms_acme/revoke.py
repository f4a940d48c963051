"""`kms-acme revoke`: revokes certificates as an administrator, with the rights of the kubeconfig's user.

Every server puts the certificate on the revocation list of its CA as soon as its watch brings the change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from acme_server.orders import transitions
from acme_server.orders.lifetimes import is_over
from acme_server.problems import ProblemType, Refused
from kms.clock import Clock
from kms.cluster import errors
from kms.cluster.client import Cluster
from kms.pki.crl import KEY_COMPROMISE
from kms.resources.kinds import ORDERS
from kms.resources.meta import Unreadable
from kms.resources.orders import ACCOUNT, ACMEOrder
from kms_acme.status_changes import NotChanged, change_each, list_objects, replace_status

_SERIAL = re.compile(r"(?:0x)?([0-9a-f]{1,40})")


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
    """The selected orders that have a certificate. Raises NotChanged if there is none, and ClusterError.

    `on_unreadable` is called with each selected order that does not fit its model: it may have a certificate.
    """
    if selection.order is not None:
        try:
            found = [await cluster.get(ORDERS, *selection.order)]
        except errors.NotFound:
            raise NotChanged(f"there is no ACMEOrder {'/'.join(selection.order)}") from None
    else:
        namespace, query = _query(selection)
        listed = list_objects(cluster, ORDERS, namespace, on_unreadable=on_unreadable, **query)
        found = [each async for each in listed]
    certified = tuple(each for each in found if each.status.certificate is not None)
    if not certified:
        what = "no such certificate"
        if selection.order is not None:
            what = f"ACMEOrder {'/'.join(selection.order)} has no certificate"
        elif selection.account is not None:
            what = f"no orders of ACMEAccount {'/'.join(selection.account)} have a certificate"
        raise NotChanged(f"{what}; `kubectl get acmeorders -A -o wide` lists all certificates")
    return certified


def _query(selection: Selection) -> tuple[str | None, dict[str, str]]:
    """The namespace to search, and the selector of labels or fields."""
    if selection.account is not None:
        namespace, name = selection.account
        return namespace, {"labels": f"{ACCOUNT}={name}"}
    where, serial = selection.serial or (None, "")
    return where, {"fields": f"status.serialNumber={serial}"}


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
    return await change_each(orders, lambda order: _revoke(cluster, order, reason, clock=clock), on_done=on_done)


async def _revoke(cluster: Cluster, order: ACMEOrder, reason: str, *, clock: Clock) -> None:
    """Write one revocation. An order that was revoked meanwhile is no failure.

    An external CA has not revoked the certificate yet.
    """
    requested = order.status.authority is not None
    revoked = partial(transitions.revoked, reason=reason, requested=requested, now=clock())
    try:
        await replace_status(cluster, ORDERS, order, revoked)
    except Refused as refused:
        if refused.type is not ProblemType.ALREADY_REVOKED:
            raise NotChanged("the order no longer has a certificate") from None
