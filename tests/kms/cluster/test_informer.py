from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from kms.cluster.client import Cluster
from kms.cluster.informer import Informer
from kms.cluster.retry import Timing
from kms.resources.accounts import AccountStatus, ACMEAccount
from kms.resources.kinds import ACCOUNTS
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer
from tests.support.eventually import hurried, in_background, until

HURRIED = Timing(sleep=hurried)


class Changes:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []

    def __call__(self, object_: ACMEAccount, deleted: bool) -> None:
        self.seen.append((object_.metadata.name, deleted))


def informer(
    cluster: Cluster, *, namespaces: tuple[str, ...] = (), changes: Changes | None = None
) -> Informer[ACMEAccount]:
    return Informer(
        cluster,
        ACCOUNTS,
        namespaces=namespaces,
        indexes={"thumbprint": lambda each: [each.spec.thumbprint]},
        on_change=changes,
        timing=HURRIED,
    )


def names(informed: Informer[ACMEAccount]) -> set[str]:
    return {each.metadata.name for each in informed.values()}


def version(object_: ACMEAccount, resource_version: int | str) -> ACMEAccount:
    metadata = msgspec.structs.replace(object_.metadata, resource_version=str(resource_version))
    return msgspec.structs.replace(object_, metadata=metadata)


async def test_it_has_what_was_there_before_it_and_what_comes_after(api: FakeApiServer, cluster: Cluster) -> None:
    api.put(ACCOUNTS, account("before"))
    informed = informer(cluster)
    assert not informed.synced.is_set()
    async with in_background(informed.run()):
        await informed.synced.wait()
        assert names(informed) == {"before"}
        after = api.put(ACCOUNTS, account("after"))
        await until(lambda: informed.get("pki", "after") == after)
        api.remove(ACCOUNTS, "pki", "before")
        await until(lambda: informed.get("pki", "before") is None)


async def test_listeners_hear_of_every_object_once(api: FakeApiServer, cluster: Cluster) -> None:
    api.put(ACCOUNTS, account("a"))
    changes = Changes()
    informed = informer(cluster, changes=changes)
    async with in_background(informed.run()):
        await informed.synced.wait()
        informed.put(await cluster.create(ACCOUNTS, account("b")))
        api.remove(ACCOUNTS, "pki", "a")
        await until(lambda: len(changes.seen) == 3)
        await asyncio.sleep(0.02)
    assert changes.seen == [("a", False), ("b", False), ("a", True)]


async def test_a_listener_that_fails_does_not_end_the_watch(
    api: FakeApiServer, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: ACMEAccount, deleted: bool) -> None:
        raise RuntimeError("listener's mistake")

    informed = Informer(cluster, ACCOUNTS, on_change=fail, timing=HURRIED)
    async with in_background(informed.run()):
        await informed.synced.wait()
        for name in ("a", "b"):
            api.put(ACCOUNTS, account(name))
        await until(lambda: names(informed) == {"a", "b"})
    assert "change handler failed" in caplog.text


async def test_an_object_that_does_not_fit_its_model_does_not_stop_the_stream(
    api: FakeApiServer, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    informed = informer(cluster)
    async with in_background(informed.run()):
        await informed.synced.wait()
        api.store.create("acmeaccounts", "pki", {"metadata": {"name": "broken"}, "spec": 7})
        api.put(ACCOUNTS, account("good"))
        await until(lambda: names(informed) == {"good"})
        assert informed.unreadable("pki", "broken") is not None
    assert "object cannot be read" in caplog.text


Fault = Callable[[FakeApiServer], Awaitable[None]]


async def cut(api: FakeApiServer) -> None:
    api.drop_watches()


async def compact(api: FakeApiServer) -> None:
    api.store.compact()
    api.drop_watches()


async def restart(api: FakeApiServer) -> None:
    await api.stop()
    await asyncio.sleep(0.05)
    await api.start()


async def refuse(api: FakeApiServer) -> None:
    api.fail_next("watch", "acmeaccounts", 403, times=2)
    api.fail_next("list", "acmeaccounts", 500, times=2)
    api.drop_watches()


async def unserve(api: FakeApiServer) -> None:
    api.unserved.add("acmeaccounts")
    api.drop_watches()
    await asyncio.sleep(0.05)
    api.unserved.clear()


async def fall_behind(api: FakeApiServer) -> None:
    api.mute = True
    api.put(ACCOUNTS, account("unheard"))
    api.store.compact()
    api.mute = False
    api.store.wake()


@pytest.mark.parametrize("fault", [cut, compact, restart, refuse, unserve, fall_behind])
async def test_after_any_fault_it_has_everything_again(api: FakeApiServer, cluster: Cluster, fault: Fault) -> None:
    changes = Changes()
    api.put(ACCOUNTS, account("gone"))
    kept = api.put(ACCOUNTS, account("kept"))
    informed = informer(cluster, changes=changes)
    async with in_background(informed.run()):
        await informed.synced.wait()
        await until(lambda: api.watching == 1)
        await fault(api)
        api.remove(ACCOUNTS, "pki", "gone")
        api.put(ACCOUNTS, account("new"))
        await until(lambda: {"new", "kept"} <= names(informed) and "gone" not in names(informed))
        assert informed.get("pki", "kept") == kept
    assert changes.seen.count(("gone", True)) == 1
    assert changes.seen.count(("kept", False)) == 1


async def test_a_cut_watch_is_resumed_without_a_list(api: FakeApiServer, cluster: Cluster) -> None:
    informed = informer(cluster)
    async with in_background(informed.run()):
        await informed.synced.wait()
        await until(lambda: api.watching == 1)
        api.drop_watches()
        api.put(ACCOUNTS, account("a"))
        await until(lambda: names(informed) == {"a"})
    assert [each.verb for each in api.requests].count("list") == 1


async def test_silence_is_not_trusted(api: FakeApiServer) -> None:
    cluster = await api.cluster(silence=0.05)
    informed = informer(cluster)
    async with in_background(informed.run()):
        await informed.synced.wait()
        await until(lambda: [each.verb for each in api.requests].count("watch") >= 2)


async def test_namespaces_are_watched_one_by_one_and_all_must_be_there_to_be_synced(
    api: FakeApiServer, cluster: Cluster
) -> None:
    for namespace in ("one", "two", "three"):
        api.put(ACCOUNTS, account("a", namespace))
    api.fail_next("list", "acmeaccounts", 503)
    informed = informer(cluster, namespaces=("one", "two", "one"))
    async with in_background(informed.run()):
        await informed.synced.wait()
        assert {each.metadata.namespace for each in informed.values()} == {"one", "two"}
        await until(lambda: api.watching == 2)
        api.store.compact()
        api.drop_watches()
        api.remove(ACCOUNTS, "one", "a")
        await until(lambda: {each.metadata.namespace for each in informed.values()} == {"two"})
    assert {each.namespace for each in api.requests} == {"one", "two"}


async def test_what_was_put_is_there_before_the_watch_brings_it(api: FakeApiServer, cluster: Cluster) -> None:
    informed = informer(cluster)
    async with in_background(informed.run()):
        await informed.synced.wait()
        api.mute = True
        created = await cluster.create(ACCOUNTS, account("a"))
        informed.put(created)
        assert informed.get("pki", "a") == created
        opened = await cluster.replace_status(
            ACCOUNTS, msgspec.structs.replace(created, status=AccountStatus(state="valid"))
        )
        informed.put(opened)
        informed.put(created)  # an older answer that comes late
        assert informed.get("pki", "a") == opened


async def test_a_late_answer_does_not_bring_back_what_the_watch_has_seen_deleted(
    api: FakeApiServer, cluster: Cluster
) -> None:
    informed = informer(cluster)
    async with in_background(informed.run()):
        await informed.synced.wait()
        created = await cluster.create(ACCOUNTS, account("a"))
        await until(lambda: names(informed) == {"a"})
        api.remove(ACCOUNTS, "pki", "a")
        await until(lambda: not informed.values())
        informed.put(created)
        assert informed.get("pki", "a") is None


async def test_activity_is_that_of_the_most_silent_namespace(api: FakeApiServer, cluster: Cluster) -> None:
    now = 100.0
    informed = Informer(
        cluster, ACCOUNTS, namespaces=("one", "two"), timing=Timing(sleep=hurried, monotonic=lambda: now)
    )
    now = 130.0
    assert informed.idle_seconds() == 30
    async with in_background(informed.run()):
        await informed.synced.wait()
        assert informed.idle_seconds() == 0
        await until(lambda: api.watching == 2)
        now = 200.0
        assert informed.idle_seconds() == 70
        api.send_bookmarks()
        await until(lambda: informed.idle_seconds() == 0)


async def test_it_tells_for_how_long_it_has_heard_of_no_changes(api: FakeApiServer, cluster: Cluster) -> None:
    informed = informer(cluster)
    assert informed.outage_seconds() > 0
    assert not informed.is_current()
    async with in_background(informed.run()):
        await until(lambda: informed.outage_seconds() == 0)
        assert informed.is_current()
        api.fail_next("watch", "acmeaccounts", 503, times=20)
        api.drop_watches()
        await until(lambda: informed.outage_seconds() > 0)
        assert not informed.is_current()
        await until(lambda: informed.outage_seconds() == 0)
        assert informed.is_current()


async def test_it_is_current_once_every_namespace_is(api: FakeApiServer, cluster: Cluster) -> None:
    resume = asyncio.Event()

    async def sleep(_: float) -> None:
        await resume.wait()

    informed = Informer(cluster, ACCOUNTS, namespaces=("a", "b"), timing=Timing(sleep=sleep))
    api.fail_next("watch", "acmeaccounts", 503)
    async with in_background(informed.run()):
        await until(lambda: api.watching == 1 and informed.synced.is_set())
        assert not informed.is_current()
        resume.set()
        await until(informed.is_current)
        assert api.watching == 2


@pytest.mark.parametrize(("lasted", "pause"), [(60.0, 1.0), (2.0, 4.0)])
async def test_after_a_watch_that_was_steady_it_does_not_wait_for_the_faults_before_it(
    api: FakeApiServer, cluster: Cluster, lasted: float, pause: float
) -> None:
    now, pauses = 100.0, []
    ticks = itertools.count()  # else no time would pass from an interruption to the question how long it has been

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await hurried(seconds)

    timing = Timing(sleep=sleep, random=lambda: 0.0, monotonic=lambda: now + next(ticks) * 1e-6)
    informed = Informer(cluster, ACCOUNTS, timing=timing)
    api.fail_next("watch", "acmeaccounts", 503, times=2)
    async with in_background(informed.run()):
        await until(lambda: api.watching == 1 and informed.outage_seconds() == 0)
        assert pauses == [1.0, 2.0]
        now += lasted
        api.fail_next("watch", "acmeaccounts", 503)
        api.drop_watches()
        await until(lambda: len(pauses) == 3)
        assert pauses[2] == pause
