from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from msgspec.structs import replace

from acme_server.api.problems import status_of
from acme_server.problems import ProblemType, Refused, Unavailable
from acme_server.state.index import Index, View
from acme_server.state.store import Store, Vanished
from kms.cluster.client import Cluster
from kms.cluster.codec import Identity
from kms.cluster.errors import AlreadyExists, ClusterError, Conflict
from kms.cluster.retry import Attempts
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS
from kms.resources.meta import Key, Resource
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer, running_api

PLURAL = ACCOUNTS.plural


@pytest.fixture
async def api() -> AsyncIterator[FakeApiServer]:
    async with running_api() as server:
        yield server


@pytest.fixture
async def cluster(api: FakeApiServer) -> Cluster:
    return await api.cluster()


def store_on(cluster: Cluster, **options: object) -> Store[ACMEAccount]:
    async def at_once(_: float) -> None: ...

    return Store(cluster, ACCOUNTS, capacity=10, retry=partial(Attempts, sleep=at_once), **options)  # type: ignore[arg-type]


@pytest.fixture
def store(cluster: Cluster) -> Store[ACMEAccount]:
    return store_on(cluster)


def contacted(contact: str, current: ACMEAccount) -> ACMEAccount:
    if contact in current.status.contact:
        return current
    return replace(current, status=replace(current.status, contact=(*current.status.contact, contact)))


def identity_of(stored: ACMEAccount) -> Identity:
    metadata = stored.metadata
    return Identity(metadata.namespace, metadata.name, metadata.resource_version)


def verbs(api: FakeApiServer) -> list[str]:
    return [each.verb for each in api.requests]


async def test_what_was_written_is_known_without_a_read(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    added = await store.add(account("a"))
    changed = await store.change(added, partial(contacted, "mailto:a@example.com"))
    assert await store.get("pki", "a") == changed
    assert verbs(api) == ["create", "update"]


async def test_what_is_not_known_is_read_once(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    api.put(ACCOUNTS, account("a"))
    found = await asyncio.gather(*(store.get("pki", "a") for _ in range(20)))
    assert all(each == found[0] for each in found)
    assert verbs(api) == ["get"]
    await store.get("pki", "a")
    assert verbs(api) == ["get"]


async def test_a_no_is_never_remembered(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    assert await store.get("pki", "a") is None
    api.put(ACCOUNTS, account("a"))
    assert await store.get("pki", "a") is not None


async def test_a_fresh_read_sees_what_others_have_written(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    seen = await store.add(account("a"))
    api.put(ACCOUNTS, contacted("x", seen))
    assert await store.get("pki", "a") == seen
    fresh = await store.read_live("pki", "a")
    assert fresh is not None
    assert fresh.status.contact == ("x",)
    assert store.get_cached("pki", "a") == fresh


async def test_a_name_that_is_taken_is_told(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    await store.add(account("a"))
    with pytest.raises(AlreadyExists):
        await store.add(account("a"))


async def test_a_transition_that_changes_nothing_costs_nothing(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    added = await store.add(account("a"))
    assert await store.change(added, lambda current: current) == added
    assert verbs(api) == ["create"]


@pytest.mark.requirement("SEC56")
async def test_a_transition_is_applied_to_what_is_there_now(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    seen = await store.add(account("a"))
    api.put(ACCOUNTS, contacted("theirs", seen))
    changed = await store.change(seen, partial(contacted, "ours"))
    assert changed.status.contact == ("theirs", "ours")
    assert verbs(api) == ["create", "update", "get", "update"]


async def test_somebody_elses_result_is_the_answer(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    seen = await store.add(account("a"))
    api.put(ACCOUNTS, contacted("ours", seen))
    changed = await store.change(seen, partial(contacted, "ours"))
    assert changed.status.contact == ("ours",)
    assert verbs(api) == ["create", "update", "get"]


async def test_writers_of_one_process_do_not_meet_as_conflicts(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    seen = await store.add(account("a"))
    await asyncio.gather(*(store.change(seen, partial(contacted, f"c{number}")) for number in range(10)))
    found = await store.get("pki", "a")
    assert found is not None
    assert len(found.status.contact) == 10
    assert verbs(api) == ["create", *["update"] * 10]


async def test_many_servers_that_write_at_once_all_succeed(api: FakeApiServer) -> None:
    stores = [store_on(await api.cluster()) for _ in range(3)]
    seen = await stores[0].add(account("a"))
    await asyncio.gather(*(each.change(seen, partial(contacted, f"c{n}")) for n, each in enumerate(stores)))
    found = api.read(ACCOUNTS, "pki", "a")
    assert found is not None
    assert sorted(found.status.contact) == ["c0", "c1", "c2"]


async def test_races_without_an_end_are_unavailable(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    seen = await store.add(account("a"))
    api.fail_next("update", PLURAL, 409, times=99)
    with pytest.raises(Unavailable):
        await store.change(seen, partial(contacted, "x"))


def refusing(current: ACMEAccount) -> ACMEAccount:
    if not current.status.contact:
        raise Refused(ProblemType.ORDER_NOT_READY, "no contact")
    return current


@pytest.mark.requirement("SEC56")
async def test_a_refusal_is_based_on_a_live_read(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    seen = await store.add(account("a"))
    with pytest.raises(Refused, match="no contact"):
        await store.change(seen, refusing)
    assert verbs(api) == ["create", "get"]
    api.put(ACCOUNTS, contacted("x", seen))
    assert (await store.change(seen, refusing)).status.contact == ("x",)


async def test_an_object_that_is_gone_has_vanished(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    seen = await store.add(account("a"))
    api.remove(ACCOUNTS, "pki", "a")
    with pytest.raises(Vanished) as caught:
        await store.change(seen, partial(contacted, "x"))
    assert status_of(caught.value) == 404
    assert store.get_cached("pki", "a") is None


async def test_an_object_that_took_the_name_is_another_one(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    seen = await store.add(account("a"))
    api.remove(ACCOUNTS, "pki", "a")
    api.put(ACCOUNTS, account("a"))
    with pytest.raises(Vanished):
        await store.change(seen, partial(contacted, "x"))
    await store.read_live("pki", "a")
    with pytest.raises(Vanished):
        await store.change(seen, partial(contacted, "x"))


async def test_a_write_without_an_answer_may_have_happened(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    seen = await store.add(account("a"))
    api.fail_next("update", PLURAL, 503, done=True)
    with pytest.raises(Unavailable):
        await store.change(seen, partial(contacted, "x"))
    found = await store.get("pki", "a")
    assert found is not None
    assert found.status.contact == ("x",)


@pytest.mark.parametrize(("status", "retry_after"), [(503, 7), (429, 7), (500, 2), (403, 30)])
async def test_what_the_api_server_cannot_do_is_unavailable(
    api: FakeApiServer, store: Store[ACMEAccount], status: int, retry_after: int
) -> None:
    api.fail_next("*", PLURAL, status, times=99, retry_after=7 if retry_after == 7 else None)
    for call in (store.get("pki", "a"), store.add(account("a")), store.page("pki", limit=9)):
        with pytest.raises(Unavailable) as caught:
            await call
        assert caught.value.retry_after == retry_after
        assert "injected" not in caught.value.detail


async def test_a_namespace_that_is_gone_is_unavailable(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    api.fail_next("create", PLURAL, 404)
    with pytest.raises(Unavailable):
        await store.add(account("a"))


@pytest.mark.parametrize("status", [400, 402, 403, 422])
async def test_what_the_api_server_refuses_is_unavailable_and_reported(
    api: FakeApiServer, cluster: Cluster, status: int
) -> None:
    reported: list[tuple[str, str | None]] = []

    def report(verb: str, resource: Resource | None, error: ClusterError) -> None:
        assert str(error).startswith("injected fault")
        reported.append((verb, resource.metadata.name if resource is not None else None))

    store = store_on(cluster, on_refused=report)
    seen = await store.add(account("a"))
    api.fail_next("*", PLURAL, status, times=99)
    for call in (
        store.add(account("b")),
        store.change(seen, partial(contacted, "x")),
        store.remove(seen.metadata),
        store.read_live("pki", "a"),
    ):
        with pytest.raises(Unavailable) as caught:
            await call
        assert caught.value.retry_after == 30
    assert reported == [("create", "b"), ("update", "a"), ("delete", None), ("get", None)]


async def test_removing_takes_the_very_version_that_was_seen(api: FakeApiServer, store: Store[ACMEAccount]) -> None:
    seen = await store.add(account("a"))
    api.put(ACCOUNTS, contacted("x", seen))
    with pytest.raises(Conflict):
        await store.remove(seen.metadata)
    fresh = await store.read_live("pki", "a")
    assert fresh is not None
    assert await store.remove(fresh.metadata)
    assert not await store.remove(fresh.metadata), "it is gone already"
    assert await store.get("pki", "a") is None


class Told(View[ACMEAccount]):
    """Records what an index tells its views."""

    def __init__(self, index: Index[ACMEAccount]) -> None:
        super().__init__(index)
        self.changes: list[tuple[str, str]] = []

    def put(self, key: Key, resource: ACMEAccount) -> None:
        self.changes.append((key[1], resource.metadata.resource_version))

    def remove(self, key: Key) -> None:
        self.changes.append((key[1], "deleted"))

    def obscure(self, key: Key) -> None:
        self.changes.append((key[1], "unreadable"))


async def test_the_watch_keeps_cached_objects_current_and_others_out(cluster: Cluster, api: FakeApiServer) -> None:
    index: Index[ACMEAccount] = Index()
    told = Told(index)
    store = store_on(cluster, index=index)
    added = await store.add(account("a"))
    other = api.put(ACCOUNTS, account("b"))
    store.apply_event(other, False)
    assert store.get_cached("pki", "b") is None
    changed = api.put(ACCOUNTS, contacted("x", added))
    store.apply_event(changed, False)
    assert await store.get("pki", "a") == changed
    store.apply_event(added, False)
    assert store.get_cached("pki", "a") == changed
    store.apply_event(changed, True)
    assert store.get_cached("pki", "a") is None
    versions = [each.metadata.resource_version for each in (added, other, changed)]
    assert told.changes == [*zip("aba", versions, strict=True), ("a", "deleted")]


async def test_the_watch_need_not_say_what_was_written_here(cluster: Cluster, api: FakeApiServer) -> None:
    index: Index[ACMEAccount] = Index()
    store = store_on(cluster, index=index)
    added = await store.add(account("a"))
    changed = await store.change(added, partial(contacted, "mailto:a@example.com"))
    assert store.is_known(identity_of(added))
    assert store.is_known(identity_of(changed))
    foreign = api.put(ACCOUNTS, contacted("mailto:b@example.com", changed))
    assert not store.is_known(identity_of(foreign))
    index.update(foreign, False)  # from a list, which says nothing to the cache
    assert not store.is_known(identity_of(foreign))
    store.apply_event(foreign, False)
    assert store.is_known(identity_of(foreign))
    index.mark_stale()  # what is seen again after a gap is confirmed
    assert not store.is_known(identity_of(foreign))


async def test_after_a_gap_nothing_is_relied_on(store: Store[ACMEAccount]) -> None:
    await store.add(account("a"))
    assert len(store) == 1
    store.clear()
    assert len(store) == 0


async def test_objects_are_normalised_wherever_they_come_from(cluster: Cluster, api: FakeApiServer) -> None:
    store = store_on(cluster, normalise=partial(contacted, "default"))
    added = await store.add(account("a"))
    assert added.status.contact == ("default",)
    api.put(ACCOUNTS, account("b"))
    listed, _ = await store.page("pki", limit=9)
    for found in (await store.get("pki", "b"), *listed):
        assert found is not None
        assert found.status.contact == ("default",)
    # What normalising adds is not a change worth a write.
    assert await store.change(added, lambda current: current) == added
    assert "update" not in verbs(api)
