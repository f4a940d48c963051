from __future__ import annotations

import asyncio

import pytest

from kms.cluster.change_feed import ChangeFeed
from kms.cluster.client import Cluster
from kms.cluster.retry import Timing
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS
from kms.resources.meta import Unreadable
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer, spoil
from tests.support.eventually import hurried, in_background, until


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def changed(self, object_: ACMEAccount, deleted: bool) -> None:
        self.heard.append(f"{'-' if deleted else '+'}{object_.metadata.namespace}/{object_.metadata.name}")

    def unreadable(self, object_: Unreadable, deleted: bool) -> None:
        self.heard.append(f"{'-' if deleted else '?'}{object_.metadata.namespace}/{object_.metadata.name}")

    def gap(self) -> None:
        self.heard.append("gap")


def change_feed(
    cluster: Cluster, listener: Listener, *namespaces: str, patience: float = 0.25
) -> ChangeFeed[ACMEAccount]:
    return ChangeFeed(
        cluster,
        ACCOUNTS,
        namespaces=namespaces,
        on_change=listener.changed,
        on_unreadable=listener.unreadable,
        on_gap=listener.gap,
        timing=Timing(sleep=hurried),
        patience=patience,
    )


async def test_it_reads_no_list_and_hears_what_happens_from_now_on(api: FakeApiServer, cluster: Cluster) -> None:
    for number in range(5):
        api.put(ACCOUNTS, account(f"before{number}"))
    listener = Listener()
    following = change_feed(cluster, listener)
    async with in_background(following.run()):
        await following.following.wait()
        api.put(ACCOUNTS, account("new"))
        api.remove(ACCOUNTS, "pki", "before0")
        await until(lambda: len(listener.heard) == 3)
    assert listener.heard == ["gap", "+pki/new", "-pki/before0"]
    assert [each.verb for each in api.requests] == ["list", "watch"]
    assert following.idle_seconds() < 60


async def test_a_cut_watch_leaves_no_gap(api: FakeApiServer, cluster: Cluster) -> None:
    listener = Listener()
    async with in_background(change_feed(cluster, listener, "pki").run()):
        await until(lambda: api.watching)
        api.put(ACCOUNTS, account("a"))
        await until(lambda: listener.heard == ["gap", "+pki/a"])
        api.drop_watches()
        api.put(ACCOUNTS, account("b"))
        await until(lambda: listener.heard == ["gap", "+pki/a", "+pki/b"])


async def test_where_changes_were_missed_it_says_so(api: FakeApiServer, cluster: Cluster) -> None:
    listener = Listener()
    async with in_background(change_feed(cluster, listener).run()):
        await until(lambda: api.watching)
        api.mute = True
        api.put(ACCOUNTS, account("missed"))
        api.store.compact()
        api.mute = False
        api.drop_watches()
        await until(lambda: listener.heard == ["gap", "gap"])
        await until(lambda: api.watching)
        api.put(ACCOUNTS, account("heard"))
        await until(lambda: listener.heard[2:] == ["+pki/heard"])


@pytest.mark.requirement("SEC82")
async def test_an_object_that_cannot_be_read_is_told_by_its_identity_and_costs_no_list(
    api: FakeApiServer, cluster: Cluster
) -> None:
    api.put(ACCOUNTS, account("bad"))
    listener = Listener()
    async with in_background(change_feed(cluster, listener).run()):
        await until(lambda: api.watching)
        spoil(api, ACCOUNTS, "bad", "spec.thumbprint", 7)
        api.remove(ACCOUNTS, "pki", "bad")
        api.put(ACCOUNTS, account("good"))
        await until(lambda: listener.heard == ["gap", "?pki/bad", "-pki/bad", "+pki/good"])


async def test_a_listener_that_fails_does_not_end_the_watch(
    api: FakeApiServer, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    heard = []

    def changed(object_: ACMEAccount, _deleted: bool) -> None:
        heard.append(object_.metadata.name)
        raise RuntimeError("listener's mistake")

    following = ChangeFeed(
        cluster,
        ACCOUNTS,
        on_change=changed,
        on_unreadable=lambda *_: None,
        on_gap=lambda: None,
        timing=Timing(sleep=hurried),
    )
    async with in_background(following.run()):
        await until(lambda: api.watching)
        for name in ("a", "b"):
            api.put(ACCOUNTS, account(name))
        await until(lambda: heard == ["a", "b"])
    assert "change handler failed" in caplog.text


async def test_it_says_when_a_version_has_come_and_does_not_wait_for_one_while_the_watch_is_lost(
    api: FakeApiServer, cluster: Cluster
) -> None:
    following = change_feed(cluster, Listener(), "pki", "team", patience=60)
    assert not await following.reach("pki", 1), "the watch has not begun"
    async with in_background(following.run()):
        await until(lambda: following.following.is_set() and not following.outage_seconds())
        written = int(api.put(ACCOUNTS, account("a")).metadata.resource_version)
        assert await following.reach("pki", written)
        other = asyncio.create_task(following.reach("team", written))
        assert not await following.reach("elsewhere", written)
        assert not other.done(), "its watch has brought nothing"
        api.send_bookmarks()
        assert await other
        await api.stop()
        await until(following.outage_seconds)
        assert not await following.reach("pki", written)
