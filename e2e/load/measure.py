"""One measurement: a warm-up, then the load in segments, with a round of the floor before each and after the last.

Only the segments count: neither the warm-up nor the floor nor the orders that prepare renewals are part of the result.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from tqdm import tqdm

from e2e.load import processes
from e2e.load.bare import LOOPBACK
from e2e.load.client import Client
from e2e.load.drive import Load, Tally, merge
from e2e.load.exchange import Exchange
from e2e.load.floor import Floor, NoFloor, RoundSize, measuring
from e2e.load.keys import AccountKey, ExternalAccount
from e2e.load.solvers import HTTP01, ByDNS, ByHTTP, ByTLS, Solver
from e2e.load.writes import Endpoint
from e2e.support import dns, http01, tlsalpn01

SEGMENTS = 5
ZONE = "load.test"
FLOOR_TOKEN = "floor"
CLIENT, SERVER, OTHERS = "client", "server", "others"


class Requests(Protocol):
    """Counts the requests of our server to the API server."""

    def mark(self) -> None:
        """Reset the count."""

    def counts(self) -> Counter[str]:
        """The number of requests since then, by kind, such as `create acmeorders`."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running ACME server.

    `pids` are the processes to measure; the CPU time of the one called `server` is compared with the floor. `requests`
    and `floor_writes` are None without an API server. For `servers` and `lenient`, see Exchange. `replicas` replaces
    our server by several behind a load balancer, for the duration of its block; it is None for other ACME servers.
    """

    name: str
    directory_url: str
    tls: ssl.SSLContext | None
    external_account: ExternalAccount | None
    http_port: int
    dns_port: int
    pids: Mapping[str, int]
    tls_alpn_port: int = 0
    requests: Requests | None = None
    floor_writes: Endpoint | None = None
    servers: Sequence[str] = ()
    lenient: bool = False
    replicas: Callable[[int], AbstractContextManager[Target]] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The load to measure.

    With `renewal`, orders replace certificates that the same accounts have just obtained (RFC 9773), so that their
    authorizations are still valid. `floor` enables the measurement of the floor.
    """

    orders: int = 2000
    clients: int = 8
    accounts: int = 8
    names: int = 1
    warm_up: int = 200
    challenge: str = HTTP01
    renewal: bool = False
    floor: bool = True


@dataclass(slots=True)
class Measurement:
    """The results, in seconds, bytes and counts of all segments.

    `machine` is the CPU time of all processes of the machine.
    """

    target: str
    plan: Plan
    tally: Tally = field(default_factory=Tally)
    cpu: Counter[str] = field(default_factory=Counter)
    machine: float = 0.0
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    api: Counter[str] | None = None
    floor: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    floor_rounds: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    breaches: Counter[str] = field(default_factory=Counter)


async def measure(
    target: Target, plan: Plan, *, round_size: RoundSize | None = None, sample_every: float = 0.5
) -> Measurement:
    """Run a measurement; `round_size` is for the floor's rounds, `sample_every` is the seconds between memory samples.

    Raises:
        ExceptionGroup: if accounts cannot be opened or a measured process ends. Failed orders are in the tally.
    """
    async with AsyncExitStack() as stack:
        answerer, zone, by_tls = http01.Answerer(), dns.Zone(ZONE), tlsalpn01.Answerer()
        await stack.enter_async_context(http01.listening(answerer, port=target.http_port))
        await stack.enter_async_context(dns.listening(zone, port=target.dns_port))
        await stack.enter_async_context(tlsalpn01.listening(by_tls, port=target.tls_alpn_port))
        floor: Floor | NoFloor = NoFloor()
        if plan.floor:
            answerer.add(FLOOR_TOKEN, "thumbprint")
            challenge = f"http://{LOOPBACK}:{target.http_port}{http01.PREFIX}{FLOOR_TOKEN}"
            floor = await stack.enter_async_context(
                measuring(challenge=challenge, api=target.floor_writes, names=plan.names, size=round_size)
            )
        clients = [await stack.enter_async_context(client(target)) for _ in range(plan.accounts)]
        for each in clients:
            await each.register(external_account=target.external_account)
        solvers: tuple[Solver, ...] = (ByHTTP(answerer.add), ByDNS(zone), ByTLS(by_tls))
        (solver,) = (each for each in solvers if each.type == plan.challenge)
        load = Load(clients, plan.clients, lambda number: names(number, plan.names), solver, keep=plan.renewal)
        bar: tqdm[Any] = tqdm(total=plan.warm_up + plan.orders, unit="order", desc="warm-up", disable=None)
        stack.callback(bar.close)
        run = Run(target, plan, load, floor, bar, sample_every=sample_every)
        await run.warm_up()
        await run.run_segments()
        for each in clients:
            run.result.retries += each.counts
            run.result.breaches += each.exchange.breaches
        return run.result


def names(number: int, count: int) -> list[str]:
    """New names for an order, so that the server cannot reuse an authorization."""
    return [f"o{number}-{position}.{ZONE}" for position in range(count)]


@asynccontextmanager
async def client(target: Target) -> AsyncIterator[Client]:
    """A client with its own key and connections."""
    async with Exchange(
        target.directory_url, tls=target.tls, servers=target.servers, lenient=target.lenient
    ) as exchange:
        yield Client(exchange, AccountKey.generate())


class Run:
    """The sequence of one measurement."""

    def __init__(
        self, target: Target, plan: Plan, load: Load, floor: Floor | NoFloor, bar: tqdm[Any], *, sample_every: float
    ) -> None:
        self.result = Measurement(target.name, plan, api=None if target.requests is None else Counter())
        self._target = target
        self._plan = plan
        self._drive = load.renew if plan.renewal else load.drive
        self._obtain = load.drive
        self._floor = floor
        self._bar = bar
        self._sample_every = sample_every
        self._numbers = itertools.count()
        self._finished = 0

    async def warm_up(self) -> None:
        """Run load that is not counted: caches fill, connections open, code is compiled."""
        await self._floor.warm_up()
        if self._plan.renewal:
            self._bar.set_description("first certificates")
            await self._obtain(range(self._plan.warm_up + self._plan.orders), lambda: None)
        await self._drive(itertools.islice(self._numbers, self._plan.warm_up), self._bar.update)

    async def run_segments(self) -> None:
        """Run all segments, and the floor around them."""
        self._bar.set_description("measured")
        self.result.before = self._resident()
        tallies = []
        for segment in range(SEGMENTS):
            await self._floor.round()
            first, last = (self._plan.orders * each // SEGMENTS for each in (segment, segment + 1))
            tallies.append(await self._segment(last - first))
        await self._floor.round()
        self.result.after = self._resident()
        self.result.tally = merge(tallies)
        self.result.floor, self.result.floor_rounds = self._floor.order, self._floor.rounds
        self.result.parts = self._floor.parts

    async def _segment(self, orders: int) -> Tally:
        if self._target.requests is not None:
            await asyncio.to_thread(self._target.requests.mark)
        sampling = asyncio.create_task(self._sample())
        before, machine = self._cpu(), processes.machine()
        try:
            tally = await self._drive(itertools.islice(self._numbers, orders), self._done)
        finally:
            sampling.cancel()
        with suppress(asyncio.CancelledError):
            await sampling
        self.result.cpu.update({name: seconds - before[name] for name, seconds in self._cpu().items()})
        self.result.machine += processes.machine() - machine
        if self._target.requests is not None and self.result.api is not None:
            self.result.api += await asyncio.to_thread(self._target.requests.counts)
        return tally

    def _done(self) -> None:
        self._finished += 1
        self._bar.update()

    async def _sample(self) -> None:
        while True:
            for name, resident in self._resident().items():
                self.result.samples.setdefault(name, []).append((self._finished, resident))
            await asyncio.sleep(self._sample_every)

    def _cpu(self) -> dict[str, float]:
        seen = {name: usage.cpu for name, usage in processes.usages(self._target.pids).items()}
        return {**seen, CLIENT: processes.own().cpu}

    def _resident(self) -> dict[str, int]:
        return {name: usage.resident for name, usage in processes.usages(self._target.pids).items()}
