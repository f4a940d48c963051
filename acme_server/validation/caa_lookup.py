"""Looks up the CAA records relevant to names (RFC 8659, 3): those of the name, else of the nearest name above it.

Clients choose the names, and every label of a name is a lookup. So the lookups of one check are limited, those of all
checks together too, and accounts and namespaces take turns.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from acme_server.fair_slots import FairSlots, Path
from acme_server.problems import Unavailable
from acme_server.validation.caa_rules import Property, names_to_look_up
from acme_server.validation.dns.client import LookupFailed, Records

LookupRecords = Callable[[str], Awaitable[Records[Property]]]
"""Looks up the CAA records of a DNS name itself. Raises LookupFailed."""

_BUSY = 5
"""Retry-After while there are too many lookups, in seconds."""


class Holder(NamedTuple):
    """For whom records are looked up: the namespace of a profile, the tenant (`ACMEOrder.tenant`), and the account."""

    namespace: str
    tenant: str
    account: str


@dataclass(frozen=True, slots=True)
class RelevantSet:
    """The records relevant to a name, and their owner; without an owner neither the name nor one above it has any.

    `failure` says why the lookup failed.
    """

    owner: str | None = None
    properties: tuple[Property, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class CAALimits:
    """Numbers of lookups. The event loop spends about 0.3 ms on one, and 10 ms if all answers come at once.

    `running`: at the same time, of which one namespace has at most `running_by_namespace`, one tenant of it
    `running_by_tenant` and one account `running_by_account`: half of the whole, three quarters and half of that. So
    there is room for others while the greatest number of lookups of one order takes 1.3 seconds at 20 ms each.
    `admitted`: of checks before issuance that run or wait, again with shares.
    """

    running: int = 32
    running_by_namespace: int = 16
    running_by_tenant: int = 12
    running_by_account: int = 8
    admitted: int = 5000
    admitted_by_namespace: int = 2500
    admitted_by_tenant: int = 1500
    admitted_by_account: int = 1000


class CAALookup:
    """Finds relevant sets, without a cache. `deadline` is in seconds, for all names of one call together."""

    def __init__(self, lookup: LookupRecords, *, deadline: float = 10.0, limits: CAALimits = CAALimits()) -> None:
        self._lookup = lookup
        self._deadline = deadline
        self._limits = limits
        self._slots = FairSlots(
            (limits.running, limits.running_by_namespace, limits.running_by_tenant, limits.running_by_account)
        )
        self._admitted: Counter[Path] = Counter()

    @contextmanager
    def admit(self, names: Iterable[str], holder: Holder) -> Iterator[None]:
        """Count the lookups that these names may take while the context is open.

        Raises Unavailable if all accounts together, the namespace, the tenant or the account would have too many.
        """
        number = len(names_to_look_up(names))
        shares: dict[Path, int] = {
            (): self._limits.admitted,
            holder[:1]: self._limits.admitted_by_namespace,
            holder[:2]: self._limits.admitted_by_tenant,
            holder: self._limits.admitted_by_account,
        }
        if any(self._admitted[key] + number > limit for key, limit in shares.items()):
            raise Unavailable("Too many CAA records are being looked up at the moment.", _BUSY)
        self._admitted.update(dict.fromkeys(shares, number))
        try:
            yield
        finally:
            for key in shares:
                self._admitted[key] -= number
                if not self._admitted[key]:
                    del self._admitted[key]

    async def find_relevant(self, names: Collection[str], holder: Holder) -> dict[str, RelevantSet]:
        """Find the relevant set of each DNS name. Each name is looked up once, also if several lie below it.

        Raises Unavailable if lookups still wait for others at the deadline.
        """
        climb = _Climb(self._lookup, self._slots, holder)
        tasks = {name: asyncio.create_task(climb.find_relevant(name)) for name in names}
        waiting = 0
        try:
            async with asyncio.timeout(self._deadline):
                await asyncio.gather(*tasks.values())
        except TimeoutError:
            waiting = climb.waiting
        finally:
            await climb.cancel(*tasks.values())
        if waiting:
            raise Unavailable("Looking up CAA records takes too long at the moment.", _BUSY)
        late = RelevantSet(failure=f"they took longer than {self._deadline:g} seconds")
        return {name: late if task.cancelled() else task.result() for name, task in tasks.items()}


class _Climb:
    """The lookups of one call, by name. `waiting`: those that wait for a slot."""

    def __init__(self, lookup: LookupRecords, slots: FairSlots, holder: Holder) -> None:
        self._lookup = lookup
        self._slots = slots
        self._holder = holder
        self._lookups: dict[str, asyncio.Task[tuple[Property, ...]]] = {}
        self.waiting = 0

    async def find_relevant(self, name: str) -> RelevantSet:
        """Climb from the name to the top-level domain; a lookup that fails ends the climb."""
        owner = name
        while owner:
            lookup = self._lookups.get(owner)
            if lookup is None:
                lookup = self._lookups[owner] = asyncio.create_task(self._look_up(owner))
            try:
                properties = await asyncio.shield(lookup)
            except LookupFailed as error:
                return RelevantSet(owner, failure=str(error))
            if properties:
                return RelevantSet(owner, properties)
            _, _, owner = owner.partition(".")
        return RelevantSet()

    async def _look_up(self, name: str) -> tuple[Property, ...]:
        self.waiting += 1
        async with self._slots.hold(self._holder):
            self.waiting -= 1
            return (await self._lookup(name)).values

    async def cancel(self, *tasks: asyncio.Task[RelevantSet]) -> None:
        """Cancel the tasks and all lookups, and wait for their end."""
        unfinished = (*tasks, *self._lookups.values())
        for each in unfinished:
            each.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
