"""What ends soon: certificates that nobody has renewed, and CAs."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

from acme_server.notifications.receivers import Receiver
from acme_server.state.certificates import CertificateRecord
from kms.resources.meta import Key

T = TypeVar("T")

_TURN = 500
"""Certificates that are looked at before others get their turn."""


class End(NamedTuple):
    """A certificate of an order, or (None) of the CA itself, ends within the threshold from `due` on."""

    due: datetime
    threshold: timedelta
    order: Key | None


def ends_of_authority(receiver: Receiver, *, after: datetime, now: datetime) -> list[End]:
    """The thresholds that the CA has passed after that time, the first one first."""
    end = receiver.authority.status.not_after if receiver.authority is not None else None
    if end is None:
        return []
    return sorted(End(end - each, each, None) for each in receiver.thresholds if after < end - each <= now)


async def ends_of_certificates(
    records: Collection[CertificateRecord], receivers: Mapping[Key, tuple[Receiver, datetime]], *, now: datetime
) -> dict[Key, deque[End]]:
    """The ends to tell, by profile, in no order.

    `receivers` are those of the profiles, with the time until which they have been told. A certificate that was revoked
    or has a later one for the same names has nothing to tell, nor a threshold that is longer than its lifetime.
    """
    found: list[tuple[Key, bytes, End]] = []
    latest: dict[tuple[Key, bytes], tuple[datetime, Key]] = {}
    known = tuple(records)
    async for each in _in_turns(known):
        profile = each.namespace, each.profile
        if each.revocation is not None or profile not in receivers:
            continue
        receiver, after = receivers[profile]
        for threshold in receiver.thresholds:
            due = each.not_after - threshold
            if after < due <= now and due > each.issued_at:
                found.append((profile, each.names, End(due, threshold, each.order)))
                latest[profile, each.names] = each.not_after, each.order
    async for each in _in_turns(known if found else ()):
        group = (each.namespace, each.profile), each.names
        if group in latest and each.revocation is None:
            latest[group] = max(latest[group], (each.not_after, each.order))
    ends: defaultdict[Key, deque[End]] = defaultdict(deque)
    async for profile, names, end in _in_turns(found):
        if latest[profile, names][1] == end.order:
            ends[profile].append(end)
    return ends


async def _in_turns(items: Sequence[T]) -> AsyncIterator[T]:
    for start in range(0, len(items), _TURN):
        for each in items[start : start + _TURN]:
            yield each
        await asyncio.sleep(0)
