"""Drives the load: so many clients at once, each obtaining one certificate after the other."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import aiohttp

from e2e.load.client import Certificate, Client, OrderFailed, Refused
from e2e.load.exchange import ProtocolError
from e2e.load.solvers import Solver

ORDER = "whole order"
"""The step that spans all others."""
SHOWN_ERRORS = 5
"""How many errors of a kind are kept as text."""

Names = Callable[[int], Sequence[str]]
"""The names to order, by the number of the order."""
Progress = Callable[[], object]
"""Called whenever an order has come to its end, good or bad."""


@dataclass(slots=True)
class Tally:
    """What was seen: durations in seconds by step, finished orders, errors by kind with some of their texts."""

    seconds: float = 0.0
    orders: int = 0
    latencies: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    texts: dict[str, list[str]] = field(default_factory=dict)

    def took(self, step: str, seconds: float) -> None:
        """Keep a duration."""
        self.latencies.setdefault(step, []).append(seconds)

    def failed(self, error: BaseException) -> None:
        """Keep an error."""
        kind = kind_of(error)
        self.errors[kind] += 1
        texts = self.texts.setdefault(kind, [])
        if len(texts) < SHOWN_ERRORS:
            texts.append(str(error) or repr(error))


def kind_of(error: BaseException) -> str:
    """What an error is counted as."""
    match error:
        case Refused():
            return f"{error.answer.status} {error.answer.problem_type}"
        case ProtocolError():
            return "breach of RFC 8555"
        case OrderFailed():
            return "order failed"
        case TimeoutError():
            return "timeout"
        case _:
            return f"connection ({type(error).__name__})"


@dataclass(frozen=True, slots=True)
class Load:
    """What to do: which clients take turns, how many orders are in flight at once, for which names, proven how.

    With `keep`, what was obtained is kept, so that it can be renewed.
    """

    clients: Sequence[Client]
    in_flight: int
    names: Names
    solver: Solver
    keep: bool = False
    kept: dict[int, tuple[Client, Certificate]] = field(default_factory=dict)

    async def drive(self, numbers: Iterable[int], done: Progress) -> Tally:
        """Obtain one certificate for each number. Returns what was seen.

        An order that fails is counted and the next one begun: whoever reads the tally decides what errors mean.
        """
        turns = itertools.cycle(self.clients)

        async def obtain(number: int) -> None:
            client = next(turns)
            await client.new_nonce()
            certificate = await client.obtain_by(self.solver, self.names(number))
            if self.keep:
                self.kept[number] = client, certificate

        return await self._run(numbers, obtain, done)

    async def renew(self, numbers: Iterable[int], done: Progress) -> Tally:
        """Renew what was kept for each number: ask when, then order in its place. Otherwise as `drive`."""

        async def renew(number: int) -> None:
            client, certificate = self.kept[number]
            await client.renewal_info(certificate)
            await client.new_nonce()
            await client.renew(certificate, self.solver, self.names(number))

        return await self._run(numbers, renew, done)

    async def _run(self, numbers: Iterable[int], work: Callable[[int], Awaitable[None]], done: Progress) -> Tally:
        tally = Tally()
        for client in self.clients:
            client.observe = tally.took
        waiting = iter(numbers)

        async def worker() -> None:
            for number in waiting:
                await _one(work(number), tally)
                done()

        begun = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.in_flight):
                tasks.create_task(worker())
        tally.seconds = time.perf_counter() - begun
        return tally


async def _one(order: Awaitable[None], tally: Tally) -> None:
    begun = time.perf_counter()
    try:
        await order
    except (Refused, ProtocolError, OrderFailed, TimeoutError, aiohttp.ClientError, OSError) as error:
        tally.failed(error)
    else:
        tally.orders += 1
        tally.took(ORDER, time.perf_counter() - begun)


def merged(tallies: Sequence[Tally]) -> Tally:
    """Several tallies as one."""
    total = Tally()
    for each in tallies:
        total.seconds += each.seconds
        total.orders += each.orders
        total.errors += each.errors
        for step, seconds in each.latencies.items():
            total.latencies.setdefault(step, []).extend(seconds)
        for kind, texts in each.texts.items():
            total.texts.setdefault(kind, []).extend(texts)
            del total.texts[kind][SHOWN_ERRORS:]
    return total
