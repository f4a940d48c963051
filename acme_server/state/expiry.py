"""Counts what ends when, for metrics: CAs, certificates, and those that nobody has renewed.

With 100,000 certificates a count takes half a second of CPU, so it is made every two minutes, in turns of a
millisecond. To find successors it looks at a part of the certificates after the other, so that it needs little memory.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from acme_server.inventory_metrics import MORE, WITHIN, Inventory, Labels
from acme_server.metrics import OTHER
from acme_server.state.certificates import CertificateRecord, Certificates
from kms.clock import Clock
from kms.contract import READY
from kms.resources.authorities import CertificateAuthority
from kms.resources.credentials import EABCredential
from kms.resources.meta import Key, is_true

T = TypeVar("T")

_RENEWED = 0.75
"""The share of its lifetime after which a certificate should have been renewed: every renewal window is over."""
_TURN = 500
"""Certificates that are counted before others get their turn."""
_PART = 10_000
"""Certificates whose successors are looked for at a time."""


class ExpiryCounts:
    """Counts in the background.

    In seconds: `every` is the time between two counts. The `maximum_profiles` with most certificates have series of
    their own, the others share one; of CAs, the `maximum_authorities` that end first have one.
    """

    def __init__(
        self,
        *,
        certificates: Certificates,
        authorities: Callable[[], Collection[CertificateAuthority]],
        credentials: Callable[[], Collection[EABCredential]],
        show: Callable[[Inventory], None],
        clock: Clock,
        every: float = 120.0,
        maximum_profiles: int = 200,
        maximum_authorities: int = 1_000,
    ) -> None:
        self._certificates = certificates
        self._authorities = authorities
        self._credentials = credentials
        self._show = show
        self._clock = clock
        self._every = every
        self._maximum_profiles = maximum_profiles
        self._maximum_authorities = maximum_authorities

    async def run(self) -> None:
        """Count again and again, first soon after the start; never returns."""
        pause = 5.0
        while True:
            await asyncio.sleep(min(pause, self._every))
            self._show(await self.count())
            pause = self._every

    async def count(self) -> Inventory:
        """Count once."""
        now = self._clock()
        records = [each for each in self._certificates.records() if each.revocation is None and each.not_after > now]
        await asyncio.sleep(0)
        certificates = await _by_profile(records, now=now)
        late = await _not_renewed(records, now=now)
        own = _with_series(certificates, most=self._maximum_profiles)
        return Inventory(
            authorities=ends_of_authorities(self._authorities(), most=self._maximum_authorities),
            certificates=_labelled(certificates, own, (*WITHIN, MORE)),
            not_renewed=_labelled(late, own, tuple(WITHIN)),
            credentials=credential_states(self._credentials(), now=now),
        )


def ends_of_authorities(authorities: Iterable[CertificateAuthority], *, most: int) -> dict[Labels, float]:
    """When the CAs end, those that end first, by (namespace, name, type)."""
    found = (
        (each.status.not_after.timestamp(), (each.metadata.namespace, each.metadata.name, each.status.type or ""))
        for each in authorities
        if each.status.not_after is not None
    )
    return {labels: end for end, labels in heapq.nsmallest(most, found)}


def credential_states(credentials: Iterable[EABCredential], *, now: datetime) -> dict[Labels, float]:
    """How many credentials are ready, not ready, suspended and expired."""
    counts = dict.fromkeys(("ready", "not-ready", "suspended", "expired"), 0)
    for each in credentials:
        if each.spec.expires_at is not None and each.spec.expires_at <= now:
            state = "expired"
        elif each.spec.suspended:
            state = "suspended"
        else:
            state = "ready" if is_true(each.status.conditions, READY) else "not-ready"
        counts[state] += 1
    return {(state,): count for state, count in counts.items()}


async def _by_profile(records: Sequence[CertificateRecord], *, now: datetime) -> Counter[tuple[Key, str]]:
    counts: Counter[tuple[Key, str]] = Counter()
    async for each in _in_turns(records):
        counts[(each.namespace, each.profile), _within(each, now)] += 1
    return counts


async def _not_renewed(records: Sequence[CertificateRecord], *, now: datetime) -> Counter[tuple[Key, str]]:
    counts: Counter[tuple[Key, str]] = Counter()
    parts = max(1, len(records) // _PART)
    for part in range(parts):
        latest: dict[tuple[str, str, bytes], CertificateRecord] = {}
        async for each in _in_turns(records):
            if hash(each.names) % parts != part:
                continue
            key = each.namespace, each.profile, each.names
            known = latest.get(key)
            if known is None or known.not_after < each.not_after:
                latest[key] = each
        async for each in _in_turns(tuple(latest.values())):
            begins = max(each.not_before, each.issued_at)
            if now - begins > (each.not_after - begins) * _RENEWED and (within := _within(each, now)) != MORE:
                counts[(each.namespace, each.profile), within] += 1
    return counts


def _within(record: CertificateRecord, now: datetime) -> str:
    rest = record.not_after - now
    return next((label for label, limit in WITHIN.items() if rest <= limit), MORE)


def _with_series(counts: Counter[tuple[Key, str]], *, most: int) -> frozenset[Key]:
    totals: Counter[Key] = Counter()
    for (profile, _), count in counts.items():
        totals[profile] += count
    return frozenset(profile for profile, _ in totals.most_common(most))


def _labelled(counts: Counter[tuple[Key, str]], own: frozenset[Key], values: Sequence[str]) -> dict[Labels, float]:
    """The counts as series: each value of `ends_within` but `more` includes those before it."""
    sums: Counter[Labels] = Counter()
    for profile in own:
        for value in values:
            sums[(*profile, value)] = 0
    for (profile, within), count in counts.items():
        labels = profile if profile in own else (OTHER, OTHER)
        bigger = values[values.index(within) :]
        for value in (MORE,) if within == MORE else bigger:
            if value != MORE or within == MORE:
                sums[(*labels, value)] += count
    return dict(sums)


async def _in_turns(items: Sequence[T]) -> AsyncIterator[T]:
    for start in range(0, len(items), _TURN):
        for each in items[start : start + _TURN]:
            yield each
        await asyncio.sleep(0)
