"""A delivery of notifications on hand-made orders, whose clock and resourceVersion the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from acme_server.notifications.changes import Changes
from acme_server.notifications.delivery import KEPT, Delivery, Pace
from acme_server.notifications.post import NotDelivered
from acme_server.notifications.progress import ProgressStore
from acme_server.notifications.receivers import Receiver
from acme_server.state.index import Index
from kms.cluster.client import Cluster
from kms.resources.meta import Key, LocalRef, ObjectMeta
from kms.resources.notifications import parse_target
from kms.resources.orders import ACMEOrder, Identifier, OrderSpec, OrderStatus
from tests.support.eventually import in_background, until

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
    """A delivery on hand-made orders; `hanging` hosts answer only once `released` is set, `failing` ones fail."""

    def __init__(
        self,
        cluster: Cluster,
        *namespaces: str,
        pace: Pace = QUICK,
        find_receivers: Callable[[], Iterable[Receiver | None]] | None = None,
    ) -> None:
        self.now = NOW
        self.index: Index[ACMEOrder] = Index()
        self.orders = Orders()
        self.position: int | None = 10
        self.sent: list[tuple[str, bytes]] = []
        self.attempts = 0
        self.hanging: set[str] = set()
        self.failing: set[str] = set()
        self.released = asyncio.Event()
        self.waiting = 0
        self.progress = ProgressStore(cluster, "kms-acme", "kms-acme")
        self.changes = Changes(self.index, is_wanted=lambda _: True, clock=lambda: self.now, kept=KEPT)
        self.receivers = [receiver(f"{number:x}-{each}", each) for number, each in enumerate(namespaces)]
        self.delivery = Delivery(
            find_receivers=find_receivers or (lambda: self.receivers),
            orders=cast("Any", self.orders),
            changes=self.changes,
            records=tuple,
            position=lambda _: self.position,
            progress=self.progress,
            post=self.post,
            clock=lambda: self.now,
            random=lambda: 0.5,
            pace=pace,
        )

    async def post(self, receiver: Receiver, _: Sequence[tuple[str, str]], body: bytes) -> None:
        self.attempts += 1
        host = receiver.target.name.value
        if host in self.hanging:
            self.waiting += 1
            await self.released.wait()
        if host in self.failing:
            raise NotDelivered("it answered with status 503")
        self.sent.append((host, body))

    def put(self, one: ACMEOrder) -> None:
        self.orders.by_key[one.metadata.namespace, one.metadata.name] = one
        self.index.update(one, False)

    def version(self, number: int = 0) -> int:
        return self.progress.known[self.receivers[number].uid].version

    def told(self) -> list[str]:
        """The names of the orders that were told, in this order."""
        return [msgspec.json.decode(body)["subject"] for _, body in self.sent]


def receiver(uid: str, namespace: str) -> Receiver:
    return Receiver(
        uid=uid,
        owner=(namespace, "web"),
        target=parse_target(f"https://{namespace}.example.com/"),
        ca_bundle=None,
        key=b"k" * 32,
        thresholds=(),
        source="/x",
        events=("Issued", "Revoked"),
    )


@asynccontextmanager
async def delivering(bench: Bench) -> AsyncIterator[Bench]:
    """The delivery leads, and its receivers are known. An error that ends it fails the test."""
    async with in_background(bench.delivery.run()) as task:
        await until(lambda: bench.progress.known or task.done())
        yield bench
        assert not task.done()
