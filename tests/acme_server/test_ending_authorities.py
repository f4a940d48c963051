"""A CA that is about to end shortens certificates, which is told, and issues none that would end at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from kms.resources.kinds import ORDERS
from kms.resources.meta import Condition, condition
from tests.support.server import Server, running_server

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NAME = "www.example.com"
COUNTER = b"kms_acme_certificates_shortened_total"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as running:
        await running.register()
        yield running


def shortened(server: Server) -> float:
    """How many certificates the server has shortened."""
    line = next(each for each in server.world.metrics.exposition().splitlines() if each.startswith(COUNTER + b" "))
    return float(line.split()[1])


def told_in_order(server: Server) -> Condition | None:
    """The condition of the only order."""
    (key,) = server.world.stored_orders()
    stored = server.world.api.read(ORDERS, *key)
    assert stored is not None
    return condition(stored.status.conditions, "DurationShortened")


async def test_a_certificate_that_ends_with_its_ca_is_told_in_its_order_and_counted(server: Server) -> None:
    end = server.world.clock() + 10 * DAY
    server.world.install_authority(not_after=end)
    ready = await server.ready(NAME)
    assert (await server.finalize(ready)).json["status"] == "valid"
    told = told_in_order(server)
    assert told is not None
    assert (told.status, told.reason) == ("True", "CertificateAuthorityEnds")
    assert f"{end:%Y-%m-%dT%H:%M:%SZ}" in told.message
    assert "720h" in told.message
    assert shortened(server) == 1


async def test_a_certificate_that_lasts_as_long_as_it_should_says_nothing(server: Server) -> None:
    assert (await server.finalize(await server.ready(NAME))).json["status"] == "valid"
    assert told_in_order(server) is None
    assert shortened(server) == 0


@pytest.mark.parametrize("rest", [timedelta(seconds=22), 59 * MINUTE], ids=str)
async def test_a_ca_that_ends_too_soon_issues_nothing_until_it_is_renewed(server: Server, rest: timedelta) -> None:
    ready = await server.ready(NAME)
    server.world.install_authority(not_after=server.world.clock() + rest)
    refused = [await server.order(NAME), await server.finalize(ready)]
    assert [each.status for each in refused] == [503, 503]
    assert all(int(each.headers["Retry-After"]) > 0 for each in refused)
    server.world.install_authority()
    assert (await server.order(NAME)).status == 201
    assert (await server.finalize(ready)).json["status"] == "valid"


async def test_a_client_that_asks_for_an_end_before_that_of_the_ca_gets_it(server: Server) -> None:
    now = server.world.clock()
    server.world.install_authority(not_after=now + 30 * MINUTE)
    ready = await server.ready(NAME, notAfter=f"{now + 20 * MINUTE:%Y-%m-%dT%H:%M:%SZ}")
    assert (await server.finalize(ready)).json["status"] == "valid"
    assert shortened(server) == 0
