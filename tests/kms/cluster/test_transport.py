"""What is sent again, and what its caller hears of that; the rules themselves are in test_retry.py."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from kms.cluster.client import Cluster
from kms.cluster.errors import AlreadyExists, ClusterError, Conflict, NotFound, Unavailable
from kms.cluster.metrics import APIMetrics
from kms.cluster.retry import RESERVE, Timing
from kms.resources.accounts import AccountStatus, ACMEAccount
from kms.resources.kinds import ACCOUNTS
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer
from tests.support.eventually import in_background, until

PLURAL = ACCOUNTS.plural


class Waits:
    """Nobody waits in these tests; here is for how long they would have."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        """What happens in the first wait."""

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            await happens()

    @property
    def timing(self) -> Timing:
        """The clock stands still but for the waits."""
        return Timing(sleep=self.sleep, random=lambda: 0.0, monotonic=lambda: sum(self.seconds))


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
async def cluster(api: FakeApiServer, waits: Waits) -> Cluster:
    return await api.cluster(timing=waits.timing)


def opened(stored: ACMEAccount) -> ACMEAccount:
    return msgspec.structs.replace(stored, status=AccountStatus(state="valid"))


def unguarded(name: str = "a") -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "pki"}, "status": {"state": "valid"}}


async def test_a_call_that_is_refused_twice_goes_through(api: FakeApiServer, cluster: Cluster, waits: Waits) -> None:
    api.fail_next("create", PLURAL, 429, retry_after=1, times=2)
    created = await cluster.create(ACCOUNTS, account("a"))
    assert api.read(ACCOUNTS, "pki", "a") == created
    assert [each.verb for each in api.requests] == ["create"] * 3
    assert waits.seconds == pytest.approx([1.1, 1.2])


async def test_every_attempt_and_every_repetition_is_counted(api: FakeApiServer, waits: Waits) -> None:
    registry = CollectorRegistry()
    cluster = await api.cluster(metrics=APIMetrics(registry, "operator"), timing=waits.timing)
    api.put(ACCOUNTS, account("a"))
    api.fail_next("get", PLURAL, 429, retry_after=1)
    api.fail_next("get", PLURAL, 503, retry_after=1)
    api.fail_next("get", PLURAL, 0)
    await cluster.get(ACCOUNTS, "pki", "a")
    labels = {"program": "operator", "verb": "get", "kind": PLURAL}
    requests = {
        status: registry.get_sample_value("kms_acme_api_requests_total", {**labels, "status": status})
        for status in ("429", "503", "0", "200")
    }
    assert requests == {"429": 1, "503": 1, "0": 1, "200": 1}
    assert registry.get_sample_value("kms_acme_api_repeats_total", labels) == 3


@pytest.mark.parametrize("status", [429, 500, 503, 504])
async def test_a_guarded_write_that_did_not_happen_goes_through(
    api: FakeApiServer, cluster: Cluster, status: int
) -> None:
    api.fail_next("create", PLURAL, status, retry_after=1)
    created = await cluster.create(ACCOUNTS, account("a"))
    api.fail_next("update", PLURAL, status, retry_after=1)
    written = await cluster.replace_status(ACCOUNTS, opened(created))
    api.fail_next("patch", PLURAL, status, retry_after=1)
    applied = await cluster.apply(ACCOUNTS, unguarded(), manager="m", subresource="status")
    assert (written.status.state, applied.status.state) == ("valid", "valid")


async def test_a_create_that_happened_does_not_tell_that_it_already_exists(
    api: FakeApiServer, cluster: Cluster
) -> None:
    api.fail_next("create", PLURAL, 503, retry_after=1, done=True)
    with pytest.raises(Unavailable, match="injected"):
        await cluster.create(ACCOUNTS, account("a"))
    assert len(api.requests) == 2
    assert api.read(ACCOUNTS, "pki", "a") is not None


async def test_a_guarded_write_that_happened_does_not_tell_of_a_conflict(api: FakeApiServer, cluster: Cluster) -> None:
    stored = api.put(ACCOUNTS, account("a"))
    api.fail_next("update", PLURAL, 500, retry_after=2, done=True)
    with pytest.raises(Unavailable, match="injected") as told:
        await cluster.replace_status(ACCOUNTS, opened(stored))
    assert told.value.retry_after == 2
    assert isinstance(told.value.__cause__, Conflict)


async def test_who_was_first_is_told_where_nothing_of_ours_has_happened(
    api: FakeApiServer, cluster: Cluster, waits: Waits
) -> None:
    async def somebody_else() -> None:
        api.put(ACCOUNTS, account("a", labels={"number": str(api.store.version)}))

    waits.meanwhile = somebody_else
    api.fail_next("create", PLURAL, 429, retry_after=1)
    with pytest.raises(AlreadyExists):
        await cluster.create(ACCOUNTS, account("a"))
    stored = await cluster.get(ACCOUNTS, "pki", "a")
    waits.meanwhile = somebody_else
    api.fail_next("update", PLURAL, 429, retry_after=1)
    with pytest.raises(Conflict):
        await cluster.replace_status(ACCOUNTS, stored)


async def test_a_delete_that_may_have_happened_is_not_sent_again(api: FakeApiServer, cluster: Cluster) -> None:
    api.put(ACCOUNTS, account("a"))
    api.fail_next("delete", PLURAL, 503, retry_after=1, done=True)
    with pytest.raises(Unavailable):
        await cluster.delete(ACCOUNTS, "pki", "a")
    assert len(api.writes) == 1


async def test_a_delete_that_was_refused_at_the_door_is_sent_again(api: FakeApiServer, cluster: Cluster) -> None:
    api.put(ACCOUNTS, account("a"))
    api.fail_next("delete", PLURAL, 429, retry_after=1)
    await cluster.delete(ACCOUNTS, "pki", "a")
    assert api.read(ACCOUNTS, "pki", "a") is None


@dataclass(frozen=True)
class Mishap:
    """What becomes of a request: how it is answered (0: not at all), and whether it is carried out."""

    status: int
    done: bool


MISHAPS = (Mishap(429, done=False), *(Mishap(status, done=done) for status in (503, 0) for done in (False, True)))
"""Whoever answers 429 has not begun."""


@pytest.mark.parametrize("verb", ["create", "update", "patch", "delete"])
async def test_whatever_goes_wrong_no_write_meets_itself(api: FakeApiServer, cluster: Cluster, verb: str) -> None:
    """Nobody else writes here, so whoever hears of a conflict has been told of a write of its own."""
    outcomes: set[type[ClusterError] | None] = set()
    for number, mishaps in enumerate(itertools.product(MISHAPS, repeat=2)):
        name = f"a{number}"
        stored = account(name) if verb == "create" else api.put(ACCOUNTS, account(name))
        metadata = {"name": name, "namespace": "pki", "resourceVersion": stored.metadata.resource_version}
        attempt: Callable[[], Awaitable[object]] = {
            "create": lambda stored=stored: cluster.create(ACCOUNTS, stored),
            "update": lambda stored=stored: cluster.replace_status(ACCOUNTS, opened(stored)),
            "patch": lambda metadata=metadata: cluster.apply(
                ACCOUNTS, {"metadata": metadata, "status": {"state": "valid"}}, manager="m", subresource="status"
            ),
            "delete": lambda name=name: cluster.delete(ACCOUNTS, "pki", name),
        }[verb]
        for each in mishaps:
            api.fail_next(verb, PLURAL, each.status, retry_after=1, done=each.done)
        try:
            await attempt()
        except ClusterError as error:
            outcomes.add(type(error))
        else:
            outcomes.add(None)
        api.succeed()
        for _ in range(4):
            await cluster.version(ACCOUNTS)  # so that the budget does not end before the mishaps do
    assert outcomes == {None, Unavailable}


async def test_a_read_whose_connection_breaks_is_sent_again(api: FakeApiServer, cluster: Cluster) -> None:
    stored = api.put(ACCOUNTS, account("a"))
    api.fail_next("get", PLURAL, 0, times=4)
    assert await cluster.get(ACCOUNTS, "pki", "a") == stored
    api.fail_next("list", PLURAL, 0, times=4)
    assert (await cluster.list(ACCOUNTS)).items == (stored,)


@pytest.mark.parametrize("verb", ["create", "update", "patch", "delete"])
async def test_a_write_whose_connection_breaks_is_sent_once(api: FakeApiServer, cluster: Cluster, verb: str) -> None:
    stored = api.put(ACCOUNTS, account("a"))
    await cluster.get(ACCOUNTS, "pki", "a")  # a connection that is there already is what aiohttp would replace
    api.fail_next(verb, PLURAL, 0, done=True)
    writes: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: cluster.create(ACCOUNTS, account("b")),
        "update": lambda: cluster.replace_status(ACCOUNTS, opened(stored)),
        "patch": lambda: cluster.apply(ACCOUNTS, unguarded(), manager="m", subresource="status"),
        "delete": lambda: cluster.delete(ACCOUNTS, "pki", "a"),
    }
    with pytest.raises(Unavailable):
        await writes[verb]()
    assert [each.verb for each in api.writes] == [verb]


async def test_a_write_that_found_nobody_to_talk_to_is_sent_when_somebody_is_there(
    api: FakeApiServer, cluster: Cluster, waits: Waits
) -> None:
    await api.stop()
    waits.meanwhile = api.start
    await cluster.create(ACCOUNTS, account("a"))
    assert api.read(ACCOUNTS, "pki", "a") is not None
    assert waits.seconds == [0.1]


async def test_where_nobody_is_there_it_is_over_after_five_attempts(
    api: FakeApiServer, cluster: Cluster, waits: Waits
) -> None:
    await api.stop()
    with pytest.raises(Unavailable):
        await cluster.create(ACCOUNTS, account("a"))
    assert waits.seconds == pytest.approx([0.1, 0.2, 0.4, 0.8])


async def test_who_asks_for_a_minute_is_not_waited_for(api: FakeApiServer, cluster: Cluster, waits: Waits) -> None:
    api.fail_next("get", PLURAL, 429, retry_after=60)
    with pytest.raises(Unavailable) as told:
        await cluster.get(ACCOUNTS, "pki", "a")
    assert (told.value.retry_after, waits.seconds) == (60, [])


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
async def test_what_does_not_ask_for_it_is_not_sent_again(api: FakeApiServer, cluster: Cluster, status: int) -> None:
    api.fail_next("get", PLURAL, status)
    with pytest.raises(Unavailable):
        await cluster.get(ACCOUNTS, "pki", "a")
    assert len(api.requests) == 1


async def test_a_missing_object_is_an_answer(api: FakeApiServer, cluster: Cluster) -> None:
    api.fail_next("get", PLURAL, 503, retry_after=1)
    with pytest.raises(NotFound):
        await cluster.get(ACCOUNTS, "pki", "a")
    assert len(api.requests) == 2


async def test_all_attempts_together_have_the_deadline_of_one(api: FakeApiServer) -> None:
    cluster = await api.cluster(deadline=0.5)
    api.fail_next("get", PLURAL, 429)
    api.fail_next("get", PLURAL, 200, delay=5.0)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="TimeoutError"):
        await cluster.get(ACCOUNTS, "pki", "a")
    assert time.monotonic() - began < 3.0
    assert len(api.requests) == 2


async def test_an_api_server_that_refuses_everybody_is_not_asked_five_times_as_often(
    api: FakeApiServer, waits: Waits
) -> None:
    cluster = await api.cluster(timing=Timing(sleep=waits.sleep, random=lambda: 0.0, monotonic=lambda: 0.0))
    calls = 3 * RESERVE
    api.fail_next("get", PLURAL, 429, retry_after=1, times=10 * calls)
    told = await asyncio.gather(
        *(cluster.get(ACCOUNTS, "pki", f"a{each}") for each in range(calls)), return_exceptions=True
    )
    assert {type(each) for each in told} == {Unavailable}
    assert len(api.requests) == calls + RESERVE


async def test_a_watch_is_not_sent_again(api: FakeApiServer, cluster: Cluster) -> None:
    api.fail_next("watch", PLURAL, 429, retry_after=1)
    with pytest.raises(Unavailable) as told:
        async for _ in cluster.watch(ACCOUNTS, resource_version="100"):
            pass
    assert told.value.retry_after == 1
    assert len(api.requests) == 1


async def test_a_call_that_waits_can_be_cancelled(api: FakeApiServer) -> None:
    waiting = asyncio.Event()

    async def sleep(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    cluster = await api.cluster(timing=Timing(sleep=sleep))
    api.fail_next("get", PLURAL, 429, retry_after=1)
    async with in_background(cluster.get(ACCOUNTS, "pki", "a")) as call:
        await until(waiting.is_set)
        call.cancel()
        await asyncio.wait((call,))
        assert call.cancelled()
    assert len(api.requests) == 1
