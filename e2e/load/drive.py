"""Drive the load: several clients run in parallel, each obtains one certificate after another."""

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
"""The name of the whole order among the steps."""
SHOWN_ERRORS = 5
"""Maximum number of error texts per kind."""

Names = Callable[[int], Sequence[str]]
"""Returns the names for an order number."""
Progress = Callable[[], object]
"""Called at the end of each order, successful or not."""


@dataclass(slots=True)
class Tally:
    """The result: durations in seconds by step, successful orders, and errors by kind with some texts."""

    seconds: float = 0.0
    orders: int = 0
    latencies: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    texts: dict[str, list[str]] = field(default_factory=dict)

    def add_duration(self, step: str, seconds: float) -> None:
        """Add the duration of a step."""
        self.latencies.setdefault(step, []).append(seconds)

    def add_error(self, error: BaseException) -> None:
        """Count an error."""
        kind = kind_of(error)
        self.errors[kind] += 1
        texts = self.texts.setdefault(kind, [])
        if len(texts) < SHOWN_ERRORS:
            texts.append(str(error) or repr(error))


def kind_of(error: BaseException) -> str:
    """The kind under which an error is counted."""
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


Work = Callable[[Client, int], Awaitable[None]]
"""Works for the order with this number, as this client."""


@dataclass(frozen=True, slots=True)
class Load:
    """A load: the clients, the number of concurrent orders, their names, and the solver of their challenges.

    With `keep`, certificates are kept for `renew`.
    """

    clients: Sequence[Client]
    in_flight: int
    names: Names
    solver: Solver
    keep: bool = False
    kept: dict[int, tuple[Client, Certificate]] = field(default_factory=dict)

    async def drive(self, numbers: Iterable[int], done: Progress) -> Tally:
        """Obtain one certificate for each number.

        A failed order is counted in the tally and does not stop the load.
        """

        async def obtain(client: Client, number: int) -> None:
            await client.new_nonce()
            certificate = await client.obtain_by(self.solver, self.names(number))
            if self.keep:
                self.kept[number] = client, certificate

        return await self._run(numbers, obtain, done)

    async def renew(self, numbers: Iterable[int], done: Progress) -> Tally:
        """Renew the kept certificate of each number: fetch its renewal information, then replace it."""

        async def renew(_client: Client, number: int) -> None:
            client, certificate = self.kept[number]
            await client.renewal_info(certificate)
            await client.new_nonce()
            await client.renew(certificate, self.solver, self.names(number))

        return await self._run(numbers, renew, done)

    async def _run(
        self, numbers: Iterable[int], work: Callable[[Client, int], Awaitable[None]], done: Progress
    ) -> Tally:
        tally = Tally()
        for client in self.clients:
            client.observe = tally.add_duration
        waiting = iter(numbers)

        async def worker(client: Client) -> None:
            for number in waiting:
                await _one(work(client, number), tally)
                done()

        begun = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            # With a client for each, all requests of an order go over one connection, as those of most clients do.
            for client in itertools.islice(itertools.cycle(self.clients), self.in_flight):
                tasks.create_task(worker(client))
        tally.seconds = time.perf_counter() - begun
        return tally


async def _one(order: Awaitable[None], tally: Tally) -> None:
    begun = time.perf_counter()
    try:
        await order
    except (Refused, ProtocolError, OrderFailed, TimeoutError, aiohttp.ClientError, OSError) as error:
        tally.add_error(error)
    else:
        tally.orders += 1
        tally.add_duration(ORDER, time.perf_counter() - begun)


def merge(tallies: Sequence[Tally]) -> Tally:
    """Add several tallies up."""
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
