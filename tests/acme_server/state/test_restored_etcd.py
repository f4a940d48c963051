"""etcd is restored from a snapshot while servers run: objects are what they once were."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from acme_server.server_state import feed_of
from acme_server.state.full_sync import FullSync
from acme_server.state.index import Index
from acme_server.state.store import Store
from kms.cluster.change_feed import ChangeFeed
from kms.cluster.retry import Timing
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS
from kms.resources.meta import key_of
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.eventually import hurried, in_background, until
from tests.support.restored_etcd import Snapshot


@pytest.fixture
async def api() -> AsyncIterator[FakeApiServer]:
    async with running_api() as api:
        yield api


@dataclass
class Followed:
    """What a server knows about accounts."""

    store: Store[ACMEAccount]
    index: Index[ACMEAccount]
    feed: ChangeFeed[ACMEAccount]

    def is_deactivated(self, name: str) -> bool:
        cached = self.store.get_cached("pki", name)
        return cached is not None and cached.status.state == "deactivated"


@asynccontextmanager
async def following(api: FakeApiServer) -> AsyncIterator[Followed]:
    cluster, index = await api.cluster(silence=0.2), Index[ACMEAccount]()
    store = Store(cluster, ACCOUNTS, capacity=100, index=index, keep_event=lambda _: True)
    sync = FullSync(cluster, ACCOUNTS, index)
    feed = feed_of(
        cluster, ACCOUNTS, store, sync, (), timing=Timing(sleep=hurried, monotonic=lambda: 100 * time.monotonic())
    )
    async with in_background(feed.run()), in_background(sync.run()):
        await until(lambda: index.complete and bool(api.watching))
        yield Followed(store, index, feed)


@pytest.mark.parametrize(("later", "bump"), [(1, 0), (50, 0), (50, 1000)])
async def test_what_is_written_after_a_restore_counts(api: FakeApiServer, later: int, bump: int) -> None:
    """Though its version is older than what the server had seen: an account that is deactivated, or is there again."""
    known, gone = api.put(ACCOUNTS, account("known")), api.put(ACCOUNTS, account("gone"))
    async with following(api) as followed:
        snapshot = Snapshot(api)
        for number in range(later):
            known = api.put(ACCOUNTS, account("known", labels={"number": str(number)}))
        api.remove(ACCOUNTS, "pki", "gone")
        api.put(ACCOUNTS, account("lost"))
        await until(lambda: key_of(gone) not in followed.index and followed.store.get_cached("pki", "lost") is not None)
        snapshot.restore(api, bump=bump)
        await until(lambda: key_of(gone) in followed.index and ("pki", "lost") not in followed.index, seconds=5)
        await until(lambda: bool(api.watching))
        api.put(ACCOUNTS, replace(known, status=replace(known.status, state="deactivated")))
        await until(lambda: followed.is_deactivated("known"), seconds=5)
        assert await followed.store.read_live(*key_of(gone)) is not None
        # Otherwise a deletion is remembered that never was, and the account is read live each time.
        assert bump or followed.store.get_cached(*key_of(gone)) is not None
