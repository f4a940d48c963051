"""All objects by one watch, from API servers that offer it and from those that do not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator

import pytest

from kms.cluster.codec import WatchEvent, decode_event
from kms.cluster.errors import Forbidden
from kms.cluster.retry import Timing
from kms.cluster.watch_list import NotStreamed, watch_list
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer, spoil
from tests.support.eventually import until

OBJECTS = 250
"""More than are decoded at once."""


def filled(api: FakeApiServer, objects: int = OBJECTS) -> set[str]:
    """Their names."""
    names = {f"a{number:04}" for number in range(objects)}
    for name in names:
        api.put(ACCOUNTS, account(name))
    return names


async def names_of(events: AsyncGenerator[WatchEvent[ACMEAccount], None]) -> set[str]:
    """The names of the objects; the last event must be the bookmark that ends them."""
    found = [event async for event in events]
    assert [event.ends_initial_events for event in found] == [False] * (len(found) - 1) + [True]
    return {event.object.metadata.name for event in found if event.object is not None}


async def test_one_request_brings_all_objects_and_the_version_to_watch_from(api: FakeApiServer) -> None:
    names = filled(api)
    api.put(ACCOUNTS, account("elsewhere", namespace="other"))
    cluster = await api.cluster()
    assert await names_of(watch_list(cluster, ACCOUNTS, "pki")) == names
    assert await names_of(watch_list(cluster, ACCOUNTS)) == {*names, "elsewhere"}
    assert [(each.verb, each.streams) for each in api.requests] == [("watch", True)] * 2


async def test_an_object_that_cannot_be_read_hides_no_others(api: FakeApiServer) -> None:
    names = filled(api)
    spoil(api, ACCOUNTS, "a0007", "spec.thumbprint", 7)
    found = [event async for event in watch_list(await api.cluster(), ACCOUNTS)]
    assert {event.object.metadata.name for event in found if event.object is not None} == names - {"a0007"}
    assert [event.unreadable.metadata.name for event in found if event.unreadable is not None] == ["a0007"]


async def test_a_stream_that_is_refused_cut_or_silent_says_so(api: FakeApiServer) -> None:
    filled(api)
    cluster = await api.cluster()

    async def stream() -> None:
        await names_of(watch_list(cluster, ACCOUNTS, silence=0.1))

    api.streams = False
    with pytest.raises(NotStreamed, match="WatchList"):
        await stream()
    api.streams, api.cut_streams_after = True, OBJECTS // 2
    with pytest.raises(NotStreamed):
        await stream()
    api.cut_streams_after, api.mute = None, True
    with pytest.raises(NotStreamed):
        await stream()
    api.mute = False
    await stream()


async def test_octets_without_an_event_are_silence(api: FakeApiServer) -> None:
    api.drip = 0.02
    events = watch_list(await api.cluster(), ACCOUNTS, silence=0.2)
    with pytest.raises(NotStreamed):
        await asyncio.wait_for(names_of(events), 5)
    api.drip = None


@pytest.mark.parametrize("bookmarks", [True, False])
async def test_events_that_come_to_no_end_are_read_for_a_bounded_time(api: FakeApiServer, bookmarks: bool) -> None:
    """As behind a proxy that leaves out sendInitialEvents: objects, then whatever changes, for ever."""
    names, api.endless = filled(api), True

    async def change() -> None:
        for number in itertools.count():
            api.put(ACCOUNTS, account("a0001", labels={"number": str(number)}))
            if bookmarks:
                api.send_bookmarks()
            await asyncio.sleep(0.02)

    changing = asyncio.create_task(change())
    found: set[str] = set()
    events = watch_list(await api.cluster(), ACCOUNTS, longest=60.0 if bookmarks else 1.0)

    async def read() -> None:
        async with asyncio.timeout(10):
            async for event in events:
                found.update({event.object.metadata.name} if event.object is not None else ())

    with pytest.raises(NotStreamed):
        await read()
    changing.cancel()
    assert found == names


async def test_an_api_server_that_forbids_watches_is_not_asked_in_another_way(api: FakeApiServer) -> None:
    api.fail_next("watch", "*", 403)
    with pytest.raises(Forbidden):
        await names_of(watch_list(await api.cluster(), ACCOUNTS))


@pytest.mark.parametrize(("times", "slept"), [(3, [2, 2, 2]), (100, [2] * 5)])
async def test_an_api_server_that_is_filling_its_cache_is_asked_again_for_a_while(
    api: FakeApiServer, times: int, slept: list[float]
) -> None:
    names = filled(api)
    api.fail_next("watch", ACCOUNTS.plural, 429, times=times, retry_after=2)
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    timing = Timing(sleep=sleep, monotonic=lambda: sum(waits))
    events = watch_list(await api.cluster(), ACCOUNTS, patience=10.0, timing=timing)
    if times > len(slept):
        with pytest.raises(NotStreamed):
            await names_of(events)
    else:
        assert await names_of(events) == names
    assert waits == slept


@pytest.mark.parametrize("ended", [False, True])
async def test_a_stream_is_closed_at_its_end_and_when_it_is_left(api: FakeApiServer, ended: bool) -> None:
    filled(api)
    events = watch_list(await api.cluster(), ACCOUNTS)
    await anext(events)
    assert api.streaming
    if ended:
        await names_of(events)
    else:
        await events.aclose()

    def gone() -> bool:
        api.send_bookmarks()  # the API server notices when it sends something
        return not api.streaming

    await until(gone)


def test_other_bookmarks_end_nothing() -> None:
    line = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7","annotations":{"a":"true"}}}}'
    assert not decode_event(ACCOUNTS, line).ends_initial_events
