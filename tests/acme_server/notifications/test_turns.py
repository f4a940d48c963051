"""The watermark, the turns of receivers, and what is told of an order."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from acme_server.notifications.changes import Changes
from acme_server.notifications.post import NotDelivered, check_status
from acme_server.state.index import Index
from kms.resources.orders import ACMEOrder
from tests.support.apiserver import running_api
from tests.support.eventually import until
from tests.support.notifying import NOW, QUICK, Bench, order


@pytest.mark.requirement("P15")
async def test_the_watermark_does_not_pass_what_the_watch_has_reported_and_a_second_version_is_not_told() -> None:
    async with running_api() as api:
        bench = Bench(await api.cluster(), "pki")
        task = asyncio.create_task(bench.delivery.run())
        await until(lambda: bench.progress.known)
        bench.put(order(15))  # written by this replica; the watch is at 10, and will report 12 of another one
        await until(lambda: len(bench.sent) == 1)
        assert bench.version() == 10
        bench.put(order(12))
        bench.position = 15
        await until(lambda: len(bench.sent) == 2)
        await until(lambda: bench.version() == 15)
        bench.put(order(12, version=20))
        bench.position = 20
        await until(lambda: bench.version() == 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(bench.sent) == 2


@pytest.mark.requirement("P15")
async def test_receivers_that_do_not_answer_delay_no_other_namespace() -> None:
    greedy = ["greedy"] * 40
    async with running_api() as api:
        bench = Bench(await api.cluster(), *greedy, "other")
        bench.hanging = {"greedy.example.com"}
        task = asyncio.create_task(bench.delivery.run())
        await until(lambda: len(bench.progress.known) == 41)
        for number in range(50):
            bench.put(order(11 + number, "greedy"))
        await until(lambda: bench.waiting == QUICK.slots_per_namespace)
        bench.put(order(100, "other"))
        await until(lambda: bench.sent)
        assert bench.waiting == QUICK.slots_per_namespace
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [name for name, _ in bench.sent] == ["other.example.com"]


@pytest.mark.requirement("P15")
def test_only_the_event_itself_can_be_refused_for_good() -> None:
    check_status(204, None)
    for status, final in ((400, True), (422, True), (401, False), (404, False), (307, False), (503, False)):
        with pytest.raises(NotDelivered) as error:
            check_status(status, b"7200" if status == 503 else None)
        assert error.value.final is final
        assert error.value.retry_after == (3600 if status == 503 else 0)


def test_an_order_that_ended_long_ago_or_has_not_ended_is_not_kept() -> None:
    index: Index[ACMEOrder] = Index()
    changes = Changes(index, is_wanted=lambda _: True, clock=lambda: NOW, kept=timedelta(days=3))
    index.update(order(5, issued_at=NOW - timedelta(days=4)), False)
    index.update(order(6, state="pending"), False)
    index.update(order(7), False)
    first = changes.first(("pki", "web"), after=0)
    assert first is not None
    assert first.version == 7
    assert changes.first(("pki", "web"), after=7) is None


def test_what_is_not_wanted_any_more_or_too_old_is_not_kept_by_a_replica_that_tells_nothing() -> None:
    index: Index[ACMEOrder] = Index()
    now, wanted = [NOW], [True]
    changes = Changes(index, is_wanted=lambda _: wanted[0], clock=lambda: now[0], kept=timedelta(days=3))
    for version in range(5, 10):
        index.update(order(version, issued_at=NOW), False)
    assert len(changes) == 5
    now[0] += timedelta(days=1)
    wanted[0] = False
    index.update(order(10, issued_at=now[0]), False)
    assert len(changes) == 0
    wanted[0] = True
    index.update(order(11, issued_at=now[0]), False)
    now[0] += timedelta(days=4)
    index.update(order(12, issued_at=now[0]), False)
    assert len(changes) == 1
