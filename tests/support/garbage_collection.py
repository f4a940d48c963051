"""Garbage collectors of a World."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from acme_server.state.garbage_collector import GarbageCollector, Pacing
from tests.support.domain import RELEASE, World


async def at_once(_: float) -> None:
    """Do not sleep."""


def garbage_collector(
    world: World,
    *,
    sleep: Callable[[float], Awaitable[None]] = at_once,
    most: int = 100,
    orders_listed: asyncio.Event | None = None,
) -> GarbageCollector:
    """A garbage collector of the world that sees its profiles change from now on.

    It pauses as `sleep` does, deletes `most` objects at once, and begins as soon as `orders_listed` is set, by
    default at once.
    """
    if orders_listed is None:
        orders_listed = asyncio.Event()
        orders_listed.set()

    collector = GarbageCollector(
        world.cluster,
        orders=world.services.state.orders,
        accounts=world.services.state.accounts,
        records=world.services.state.records,
        account_index=world.services.state.account_index,
        chains=world.services.state.chains,
        profiles=world.profiles,
        namespace=RELEASE,
        namespaces=(),
        deletion_retention=timedelta(days=7),
        orders_listed=orders_listed,
        clock=world.clock,
        metrics=world.metrics,
        pace=Pacing(every=0.01, rate=50, most=most, pause=0.01),
        sleep=sleep,
    )
    world.profile_watchers.append(collector.notice)
    return collector
