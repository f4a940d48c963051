"""The watermark, the turns of receivers, and what is told of an order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from acme_server.notifications.changes import Changes
from acme_server.notifications.delivery import Delivery, Pace
from acme_server.notifications.post import NotDelivered, check_status
from acme_server.notifications.progress import ProgressStore
from acme_server.notifications.receivers import Receiver
from acme_server.state.index import Index
from kms.cluster.client import Cluster
from kms.resources.meta import Key, LocalRef, ObjectMeta
from kms.resources.notifications import parse_target
from kms.resources.orders import ACMEOrder, Identifier, OrderSpec, OrderStatus
from tests.support.apiserver import running_api
from tests.support.eventually import until

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
QUICK = Pace(every=0.005, look=60, save=0.02, shortest=0.02, longest=0.05)


def order(number: int, namespace: str = "pki", *, version: int | None = None, **status: Any) -> ACMEOrder:
    return ACMEOrder(
        metadata=ObjectMeta(
            namespace=namespace,
            name=f"o{number}",
            uid=f"uid-{namespace}-{number}",
            resource_version=str(version or number),
        ),
        spec=OrderSpec(
            account_ref=LocalRef(name="a"),
            profile_ref=LocalRef(name="web"),
            identifiers=(Identifier(type="dns", value="www.example.com"),),
            expires=NOW,
        ),
        status=OrderStatus(**{"state": "valid", "issued_at": NOW, "serial_number": "1", **status}),
    )


class Orders:
    """The store: what the index has."""

    def __init__(self) -> None:
        self.by_key: dict[Key, ACMEOrder] = {}

    def get_cached(self, namespace: str, name: str) -> ACMEOrder | None:
        return self.by_key.get((namespace, name))

    read_live = get_cached


class Bench:
    """A delivery on hand-made orders; `slow` receivers answer only when they are let go."""

    def __init__(self, cluster: Cluster, *namespaces: str) -> None:
        self.index: Index[ACMEOrder] = Index()
        self.orders = Orders()
        self.position = 10
        self.sent: list[tuple[str, bytes]] = []
        self.hanging: set[str] = set()
        self.waiting = 0
        self.progress = ProgressStore(cluster, "kms-acme", "kms-acme")
        self.changes = Changes(self.index, is_wanted=lambda _: True, clock=lambda: NOW, kept=timedelta(days=3))
        self.receivers = [
            Receiver(
                uid=f"{number:x}-{each}",
                owner=(each, "web"),
                target=parse_target(f"https://{each}.example.com/"),
                ca_bundle=None,
                key=b"k" * 32,
                thresholds=(),
                source="/x",
                events=("Issued", "Revoked"),
            )
            for number, each in enumerate(namespaces)
        ]
        self.delivery = Delivery(
            find_receivers=lambda: self.receivers,
            orders=cast("Any", self.orders),
            changes=self.changes,
            records=tuple,
            position=lambda _: self.position,
            progress=self.progress,
            post=self.post,
            clock=lambda: NOW,
            random=lambda: 0.5,
            pace=QUICK,
        )

    async def post(self, receiver: Receiver, _: Sequence[tuple[str, str]], body: bytes) -> None:
        if receiver.target.name.value in self.hanging:
            self.waiting += 1
            await asyncio.sleep(3600)
        self.sent.append((receiver.target.name.value, body))

    def put(self, one: ACMEOrder) -> None:
        self.orders.by_key[one.metadata.namespace, one.metadata.name] = one
        self.index.update(one, False)

    def version(self, number: int = 0) -> int:
        return self.progress.known[self.receivers[number].uid].version


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
