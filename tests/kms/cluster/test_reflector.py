from __future__ import annotations

import asyncio

import pytest

from kms.cluster.codec import WatchEvent
from kms.cluster.reflector import Reflector
from kms.cluster.retry import Timing
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer
from tests.support.eventually import hurried, in_background, until


class Slept:
    """Notes how long it should have slept, and lets the test go on after `limit` times."""

    def __init__(self, limit: int) -> None:
        self.seconds: list[float] = []
        self.limit = limit

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) >= self.limit:
            await asyncio.Event().wait()


async def followed(api: FakeApiServer, slept: Slept, events: list[WatchEvent[ACMEAccount]]) -> Reflector[ACMEAccount]:
    cluster = await api.cluster()
    return Reflector(
        cluster,
        ACCOUNTS,
        "pki",
        begin=lambda: cluster.version(ACCOUNTS, "pki"),
        on_event=events.append,
        timing=Timing(sleep=slept, random=lambda: 0.0),
    )


async def test_refusals_in_a_row_are_given_more_and_more_time(api: FakeApiServer) -> None:
    api.fail_next("*", "*", 403, times=100)
    slept = Slept(7)
    async with in_background((await followed(api, slept, [])).run()):
        await until(lambda: len(slept.seconds) == 7)
    assert slept.seconds == [1, 2, 4, 8, 16, 30, 30]


class Away:
    """An API server that is away, and then starts: virtual seconds pass while the reflector sleeps."""

    def __init__(self, api: FakeApiServer, *, back: float, ready: float) -> None:
        self.now = 0.0
        self._api = api
        self._phases = [(ready, None), (back, 503)]
        api.fail_next("*", "*", 0, times=10**6)

    async def __call__(self, seconds: float) -> None:
        self.now += seconds
        while self._phases and self.now >= self._phases[-1][0]:
            _, status = self._phases.pop()
            self._api.succeed()
            if status is not None:
                self._api.fail_next("*", "*", status, times=10**6)


@pytest.mark.parametrize("back", range(3, 120, 9))
async def test_an_api_server_that_is_ready_again_is_heard_within_five_seconds(api: FakeApiServer, back: int) -> None:
    """However long it was away; three seconds pass between its first answer and its being ready."""
    away, cluster = Away(api, back=back, ready=back + 3), await api.cluster(timing=Timing(sleep=hurried))
    reflector = Reflector(
        cluster,
        ACCOUNTS,
        "pki",
        begin=lambda: cluster.version(ACCOUNTS, "pki"),
        on_event=lambda _: None,
        timing=Timing(sleep=away, random=lambda: 0.0),
    )
    async with in_background(reflector.run()):
        await until(lambda: api.watching)
    assert away.now - (back + 3) <= 5


async def test_an_api_server_that_is_back_without_the_version_is_listed_at_once_but_only_the_first_time(
    api: FakeApiServer,
) -> None:
    slept = Slept(7)
    for verb, status, times in (("list", 500, 4), ("watch", 410, 100)):
        api.fail_next(verb, "*", status, times=times)
    async with in_background((await followed(api, slept, [])).run()):
        await until(lambda: len(slept.seconds) == 7)
    assert slept.seconds == [1, 2, 4, 4, 1, 2, 4]


async def test_an_api_server_that_asks_for_patience_gets_it(api: FakeApiServer) -> None:
    api.fail_next("list", "*", 429, retry_after=20)
    slept = Slept(1)
    async with in_background((await followed(api, slept, [])).run()):
        await until(lambda: slept.seconds)
    assert slept.seconds == [20]


async def test_a_watch_that_ends_at_once_time_and_again_is_not_asked_for_in_a_hurry(api: FakeApiServer) -> None:
    api.fail_next("watch", "*", 204, times=100)
    slept = Slept(3)
    async with in_background((await followed(api, slept, [])).run()):
        await until(lambda: len(slept.seconds) == 3)
    assert slept.seconds == [1, 2, 4]
    assert [each.verb for each in api.requests] == ["list", "watch", "watch", "watch"]


async def test_an_event_ends_the_row_of_failures(api: FakeApiServer) -> None:
    api.fail_next("list", "*", 500, times=3)
    slept = Slept(5)
    events: list[WatchEvent[ACMEAccount]] = []
    async with in_background((await followed(api, slept, events)).run()):
        await until(lambda: api.watching)
        api.put(ACCOUNTS, account("a"))
        await until(lambda: events)
        api.drop_watches()
        await until(lambda: len(slept.seconds) == 4)
    assert slept.seconds == [1, 2, 4, 1]


async def test_every_watch_asks_for_bookmarks_and_goes_on_from_the_last_one(api: FakeApiServer) -> None:
    slept = Slept(2)
    async with in_background((await followed(api, slept, [])).run()):
        await until(lambda: api.watching)
        api.send_bookmarks()
        api.store.compact()
        await until(lambda: slept.seconds or api.watching)
        assert not slept.seconds
