"""What is not Ready and why, what ends soon, issuance and failures over the last day. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kms.contract import READY
from kms.resources.authorities import CertificateAuthority
from kms.resources.meta import Condition, Key, condition
from kms_acme.certificates import Filter, Renewals, Row
from kms_acme.console.entries import Event, Order, Uncertified
from kms_acme.console.pictures import Bin, Picture

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
AUTHORITY_ENDS = timedelta(days=90)
"""A CA that ends within this time is shown: everything below it has to be renewed."""
SHOWN = 20


@dataclass(frozen=True, slots=True)
class NotReady:
    """An object that is not Ready, and why."""

    kind: str
    namespace: str
    name: str
    reason: str
    message: str
    since: datetime | None


def not_ready(kind: str, objects: Iterable[tuple[Key, tuple[Condition, ...]]]) -> Iterator[NotReady]:
    """Those of the objects that are not Ready."""
    for (namespace, name), conditions in objects:
        found = condition(conditions, READY)
        if found is None:
            yield NotReady(kind, namespace, name, "Unknown", "The operator has not looked at it yet.", None)
        elif found.status != "True":
            yield NotReady(kind, namespace, name, found.reason, found.message, found.last_transition_time)


def ending_authorities(authorities: Iterable[CertificateAuthority], *, now: datetime) -> Sequence[CertificateAuthority]:
    """The CAs that end soon or have ended, the first one first."""
    ending = [
        (each.status.not_after, each)
        for each in authorities
        if each.status.not_after is not None and each.status.not_after - now <= AUTHORITY_ENDS
    ]
    return [each for _, each in sorted(ending, key=lambda pair: pair[0])]


def select(rows: Iterable[Row], chosen: Filter, *, not_renewed: bool, now: datetime) -> list[Row]:
    """The certificates that the filter chooses; with `not_renewed`, those without a successor."""
    renewals, kept = Renewals(), []
    for row in rows:
        if not_renewed:
            renewals.note(row)
        if chosen.matches(row, now=now):
            kept.append(row)
    return [each for each in kept if not renewals.has_successor(each)] if not_renewed else kept


def last_day(orders: Iterable[Order], *, now: datetime) -> Picture:
    """Certificates that were issued and orders that failed, by hour."""
    end = now.replace(minute=0, second=0, microsecond=0) + _HOUR
    begin = end - _DAY
    counts = [[0, 0] for _ in range(24)]
    for order in orders:
        if isinstance(order, Row):
            at, series = order.issued, 0
        elif order.has_failed:
            at, series = order.created, 1
        else:
            continue
        if at is not None and begin <= at < end:
            counts[(at - begin) // _HOUR][series] += 1
    bins = tuple(
        Bin(
            f"{begin + number * _HOUR:%d %b %H:00}",
            f"{begin + number * _HOUR:%H:00}" if number % 6 == 0 else "",
            (issued, failed),
        )
        for number, (issued, failed) in enumerate(counts)
    )
    return Picture("last-day", "The last day, by hour (UTC)", "Hour", ("issued", "failed"), bins)


def recent_failures(orders: Iterable[Order], *, now: datetime) -> list[Uncertified]:
    """The orders that failed within the last day, the latest first."""
    found = [
        (each.created, each)
        for each in orders
        if isinstance(each, Uncertified) and each.has_failed and each.created is not None and now - each.created <= _DAY
    ]
    return [each for _, each in sorted(found, key=lambda pair: pair[0], reverse=True)]


def recent_events(events: Iterable[Event], *, now: datetime) -> list[Event]:
    """The warnings of the last day about anything but single orders, the latest first."""
    found = [
        (each.last, each)
        for each in events
        if each.type == "Warning"
        and each.regarding.kind != "ACMEOrder"
        and each.last is not None
        and now - each.last <= _DAY
    ]
    return [each for _, each in sorted(found, key=lambda pair: pair[0], reverse=True)]
