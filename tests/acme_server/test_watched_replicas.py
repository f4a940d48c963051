"""Three replicas whose watches run: a client that asks another one each time, and what that costs and shows."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from acme_server.sessions import Seen
from tests.support import pki
from tests.support.acme import b64
from tests.support.apiserver import FakeApiServer
from tests.support.eventually import becomes, in_background, until
from tests.support.server import Answer, Server, running_replica, running_server

RANK = {each: rank for rank, each in enumerate(("pending", "processing", "ready", "valid"))}
READS = {"get", "list"}


@dataclass
class Turns:
    """A client that sends each request to the next replica, with the nonce of the answer before."""

    replicas: tuple[Server, ...]
    nonce: str
    turn: int = 0
    shown: dict[str, int] = field(default_factory=dict)
    """How far each order and authorization was when the client saw it last."""

    @property
    def api(self) -> FakeApiServer:
        return self.replicas[0].world.api

    async def post(self, url: str, payload: Any = None) -> Answer:
        at = self.replicas[self.turn % len(self.replicas)]
        self.turn += 1
        answer = await self.replicas[0].post(url, payload, at=at, nonce=self.nonce)
        assert answer.status < 300, answer.text
        self.nonce = answer.headers["Replay-Nonce"]
        if answer.headers["Content-Type"] == "application/json":
            shown, rank = answer.headers.get("Location", url), RANK[answer.json["status"]]
            assert rank >= self.shown.get(shown, 0), f"{shown} was further than {answer.json['status']}"
            self.shown[shown] = rank
        return answer

    async def order(self, name: str) -> Answer:
        return await self.post(f"{self.replicas[0].base}/new-order", {"identifiers": [{"type": "dns", "value": name}]})

    async def obtain(self, name: str, between: Callable[[], None] = lambda: None, *, another: bool = False) -> str:
        """Get a certificate as clients do, perhaps with `another` order before it looks at the first one.

        `between` is called after each step.
        """
        order = await self.order(name)
        (authorization,) = order.json["authorizations"]
        between()
        challenge = (await self.post(authorization)).json["challenges"][0]
        between()
        await self.post(challenge["url"], {})
        between()

        async def is_valid() -> bool:
            return bool((await self.post(authorization)).json["status"] == "valid")

        await becomes(is_valid)
        between()
        if another:
            await self.order(f"another-{name}")
        assert (await self.post(order.location)).json["status"] == "ready"
        between()
        finalized = await self.post(order.json["finalize"], {"csr": b64(pki.csr(name))})
        between()
        if another:
            await self.order(f"other-{name}")
        seen = await self.post(order.location)
        assert finalized.json == seen.json
        assert seen.json["status"] == "valid"
        return (await self.post(seen.json["certificate"])).text


@asynccontextmanager
async def replicas(count: int = 3) -> AsyncIterator[Turns]:
    """Replicas that share an account, and know everything that there is."""
    async with running_server() as first, AsyncExitStack() as stack:
        await first.register()
        first.nonces.carry_seen = True
        first.world.sole_writer = False
        worlds = [first.world, *(first.world.another(replica=f"server-{n}") for n in range(1, count))]
        others = [await stack.enter_async_context(running_replica(each, first.nonces)) for each in worlds[1:]]
        for world in worlds:
            for work in world.services.state.works.values():
                await stack.enter_async_context(in_background(work()))
        await until(lambda: all(all(each() for each in world.services.state.conditions.values()) for world in worlds))
        # What is older than a process may have been begun by another one: it is validated when somebody looks at it.
        for clock in {id(each.clock): each.clock for each in worlds}.values():
            clock.ahead += timedelta(seconds=2)
        turns = Turns((first, *others), first.nonces.issue())
        await turns.obtain("warm.example.com")
        yield turns
        for world in worlds:
            await world.services.worker.drain(1)


def asked(turns: Turns, since: int) -> list[str]:
    return [f"{each.verb} {each.plural}" for each in turns.api.requests[since:] if each.verb in READS]


async def test_an_order_that_goes_through_three_replicas_costs_one_read_which_guards_the_signature() -> None:
    async with replicas() as turns:
        costs = []
        for number in range(5):
            before = len(turns.api.requests)
            await turns.obtain(f"counted-{number}.example.com")
            costs.append(asked(turns, before))
        # A machine that holds up a watch for a quarter of a second makes a replica read.
        assert sorted(costs, key=len)[2] == ["get acmeaccounts"], costs


def late(api: FakeApiServer) -> Callable[[], None]:
    api.watch_delay = 1.0
    return lambda: None


def cut(api: FakeApiServer) -> Callable[[], None]:
    return api.drop_watches


def silent(api: FakeApiServer) -> Callable[[], None]:
    api.mute = True
    return lambda: None


def lossy(api: FakeApiServer) -> Callable[[], None]:
    chance = itertools.cycle((True, False, False, True, True))
    api.loses = lambda _event: next(chance)
    return lambda: None


@pytest.mark.requirement("SEC56")
@pytest.mark.parametrize(("fault", "another"), [(late, True), (cut, True), (silent, True), (lossy, False)])
async def test_a_client_that_changes_the_replica_with_every_request_notices_no_fault_of_the_watches(
    *, fault: Callable[[FakeApiServer], Callable[[], None]], another: bool
) -> None:
    async with replicas() as turns:
        between = fault(turns.api)
        for number in range(2):
            chain = await turns.obtain(f"order-{number}.example.com", between, another=another)
            assert chain.startswith("-----BEGIN CERTIFICATE")


@pytest.mark.requirement("SEC56")
async def test_without_a_nonce_that_tells_what_its_client_has_seen_an_open_order_is_read_live() -> None:
    async with replicas() as turns:
        first, second, _ = turns.replicas
        order = await first.order("fresh.example.com")
        before = len(turns.api.requests)
        for _ in range(3):
            assert (await first.post(order.location, at=second)).json["status"] == "pending"
        assert asked(turns, before).count("get acmeorders") >= 3


async def test_nonces_that_name_a_version_yet_to_come_delay_requests_for_a_moment_altogether() -> None:
    async with replicas() as turns:
        first, second, _ = turns.replicas
        order = await turns.post(
            f"{first.base}/new-order", {"identifiers": [{"type": "dns", "value": "w.example.com"}]}
        )
        await until(lambda: len(second.world.services.state.orders) > 1)
        begun = time.monotonic()
        for _ in range(20):
            answer = await first.post(order.location, at=second, nonce=first.nonces.issue(Seen(2**47, 1)))
            assert answer.json["status"] == "pending"
        assert time.monotonic() - begun < 20 * 0.25, "one of them waits, not each"
