"""Looks up the CAA records that concern names (RFC 8659, 3): those of the name, else of the nearest name above it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from acme_server.validation.caa_rules import Property
from acme_server.validation.dns.records import RecordSource
from acme_server.validation.dns.servers import LookupFailed

DEADLINE = 10.0
"""Seconds for all names of one check together."""
_AT_A_TIME = 10


@dataclass(frozen=True, slots=True)
class RelevantSet:
    """The records that concern a name, and the name that has them; none: no name up to the top has any.

    `failure` says why it is not known which these are.
    """

    owner: str | None = None
    properties: tuple[Property, ...] = ()
    failure: str | None = None


class CAALookup:
    """Finds relevant sets. Nothing is remembered from one call to the next."""

    def __init__(self, records: RecordSource, *, deadline: float = DEADLINE) -> None:
        self._records = records
        self._deadline = deadline

    async def relevant(self, names: Collection[str]) -> dict[str, RelevantSet]:
        """The relevant set of each DNS name. No name is asked for twice, also where several lie below it."""
        climb = _Climb(self._records)
        tasks = {name: asyncio.create_task(climb.relevant(name)) for name in names}
        try:
            async with asyncio.timeout(self._deadline):
                await asyncio.gather(*tasks.values())
        except TimeoutError:
            pass
        finally:
            await climb.end(*tasks.values())
        late = RelevantSet(failure=f"they took longer than {self._deadline:g} seconds")
        return {name: late if task.cancelled() else task.result() for name, task in tasks.items()}


class _Climb:
    """One check: what was found at each name."""

    def __init__(self, records: RecordSource) -> None:
        self._records = records
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self._found: dict[str, asyncio.Task[tuple[Property, ...]]] = {}

    async def relevant(self, name: str) -> RelevantSet:
        """Climb from the name to the label below the root; a lookup that fails ends it."""
        owner = name
        while owner:
            lookup = self._found.get(owner)
            if lookup is None:
                lookup = self._found[owner] = asyncio.create_task(self._at(owner))
            try:
                properties = await asyncio.shield(lookup)
            except LookupFailed as error:
                return RelevantSet(owner, failure=str(error))
            if properties:
                return RelevantSet(owner, properties)
            _, _, owner = owner.partition(".")
        return RelevantSet()

    async def _at(self, name: str) -> tuple[Property, ...]:
        async with self._slots:
            return (await self._records.caa(name)).values

    async def end(self, *tasks: asyncio.Task[RelevantSet]) -> None:
        """End what is still under way."""
        open_ = (*tasks, *self._found.values())
        for each in open_:
            each.cancel()
        await asyncio.gather(*open_, return_exceptions=True)
