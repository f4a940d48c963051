"""Thousands of orders: the first page does not wait for them, and neither pages nor memory grow with them."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from kms_acme.console.changes import Changes
from kms_acme.console.inventory import Inventory
from kms_acme.console.server import running_console
from tests.support.console import Visitor
from tests.support.many_orders import ManyOrders
from tests.support.shown_cluster import AT

pytestmark = pytest.mark.requirement("P9")


@asynccontextmanager
async def visiting(cluster: ManyOrders) -> AsyncIterator[Visitor]:
    running = running_console(
        cluster,  # type: ignore[arg-type]
        None,
        port=0,
        about="many",
        clock=lambda: AT,
        objection=lambda _: None,
    )
    jar = aiohttp.CookieJar(unsafe=True)
    async with running as console, aiohttp.ClientSession(cookie_jar=jar) as session:
        visitor = Visitor(session, console.url)
        await visitor.enter()
        yield visitor


async def test_pages_come_while_ten_thousand_orders_are_being_read() -> None:
    cluster = ManyOrders(10_000, free=2)
    async with visiting(cluster) as visitor:
        started = time.perf_counter()
        assert (await visitor.get("")).status == 200
        assert time.perf_counter() - started < 5.0, "usually some milliseconds"
        page = await visitor.wait_for("certificates", lambda page: "host-0." in page.text)
        assert "Still reading ACMEOrders: " in page.text
        cluster.release.set()
        page = await visitor.settled("certificates")
        assert "1 to 50 of 9,000 certificates." in page.text
        started = time.perf_counter()
        sizes = [
            len((await visitor.get(path)).html)
            for path in ("", "certificates", "certificates?page=180", "orders?state=invalid", "accounts", "orders?q=77")
        ]
        assert time.perf_counter() - started < 20.0, "usually half a second"
        assert max(sizes) < 80_000
        last = await visitor.get("certificates?page=180")
        assert "8,951 to 9,000 of 9,000 certificates." in last.text
        for page_number in ("181", "99999999", "0", "-1", "x"):
            assert (await visitor.get("certificates", params={"page": page_number})).status == 200
        assert cluster.largest <= 2_000


async def test_an_order_takes_less_than_a_kilobyte() -> None:
    async def kept(number: int) -> int:
        changes = Changes()
        inventory = Inventory(ManyOrders(number), None, clock=lambda: AT, changes=changes)  # type: ignore[arg-type]
        reading = asyncio.create_task(inventory.run())
        tracemalloc.start()
        try:
            while not inventory.orders.is_complete:
                await changes.wait(changes.count, seconds=30)
            assert len(inventory.orders.entries) == number
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    few, many = await kept(1_000), await kept(3_000)
    assert (many - few) / 2_000 < 1_200


async def test_orders_beyond_the_maximum_are_counted_and_left_out() -> None:
    changes = Changes()
    inventory = Inventory(
        ManyOrders(3_000),  # type: ignore[arg-type]
        None,
        clock=lambda: AT,
        changes=changes,
        maximum_orders=2_000,
    )
    reading = asyncio.create_task(inventory.run())
    while not inventory.orders.is_complete:
        await changes.wait(changes.count, seconds=30)
    assert len(inventory.orders.entries) == 2_000
    assert [each.text for each in inventory.notes(inventory.orders)] == [
        "1,000 ACMEOrders are not shown: there are too many."
    ]
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
