"""What ends soon: certificates that nobody has renewed, and CAs."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from acme_server.notifications.receivers import Receiver
from acme_server.notifications.turns import in_turns
from acme_server.state.certificates import CertificateRecord
from kms.resources.meta import Key

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
    async for each in in_turns(known, turn=_TURN):
        profile = each.namespace, each.profile
        if each.revocation is not None or profile not in receivers:
            continue
        receiver, after = receivers[profile]
        for threshold in receiver.thresholds:
            due = each.not_after - threshold
            if after < due <= now and due > each.issued_at:
                found.append((profile, each.names, End(due, threshold, each.order)))
                latest[profile, each.names] = each.not_after, each.order
    async for each in in_turns(known if found else (), turn=_TURN):
        group = (each.namespace, each.profile), each.names
        if group in latest and each.revocation is None:
            latest[group] = max(latest[group], (each.not_after, each.order))
    ends: defaultdict[Key, deque[End]] = defaultdict(deque)
    async for profile, names, end in in_turns(found, turn=_TURN):
        if latest[profile, names][1] == end.order:
            ends[profile].append(end)
    return ends
