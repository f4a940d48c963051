"""Looks up the CAA records relevant to names (RFC 8659, 3): those of the name, else of the nearest name above it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from acme_server.validation.caa_rules import Property
from acme_server.validation.dns.client import LookupFailed, Records

LookupRecords = Callable[[str], Awaitable[Records[Property]]]
"""Looks up the CAA records of a DNS name itself. Raises LookupFailed."""


@dataclass(frozen=True, slots=True)
class RelevantSet:
    """The records relevant to a name, and their owner; without an owner neither the name nor one above it has any.

    `failure` says why the lookup failed.
    """

    owner: str | None = None
    properties: tuple[Property, ...] = ()
    failure: str | None = None


class CAALookup:
    """Finds relevant sets, without a cache. `deadline` is in seconds, for all names of one call together."""

    def __init__(self, lookup: LookupRecords, *, deadline: float = 10.0, concurrency: int = 10) -> None:
        self._lookup = lookup
        self._deadline = deadline
        self._concurrency = concurrency

    async def find_relevant(self, names: Collection[str]) -> dict[str, RelevantSet]:
        """Find the relevant set of each DNS name. Each name is looked up once, also if several lie below it."""
        climb = _Climb(self._lookup, asyncio.Semaphore(self._concurrency))
        tasks = {name: asyncio.create_task(climb.find_relevant(name)) for name in names}
        try:
            async with asyncio.timeout(self._deadline):
                await asyncio.gather(*tasks.values())
        except TimeoutError:
            pass
        finally:
            await climb.cancel(*tasks.values())
        late = RelevantSet(failure=f"they took longer than {self._deadline:g} seconds")
        return {name: late if task.cancelled() else task.result() for name, task in tasks.items()}


class _Climb:
    """The lookups of one call, by name."""

    def __init__(self, lookup: LookupRecords, slots: asyncio.Semaphore) -> None:
        self._lookup = lookup
        self._slots = slots
        self._lookups: dict[str, asyncio.Task[tuple[Property, ...]]] = {}

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
        async with self._slots:
            return (await self._lookup(name)).values

    async def cancel(self, *tasks: asyncio.Task[RelevantSet]) -> None:
        """Cancel the tasks and all lookups, and wait for their end."""
        unfinished = (*tasks, *self._lookups.values())
        for each in unfinished:
            each.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
