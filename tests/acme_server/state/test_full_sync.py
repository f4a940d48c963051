"""A list of more objects than fit a page, by an API server that does not always answer."""

from __future__ import annotations

from collections import Counter

import pytest

from acme_server.state.full_sync import FullSync
from acme_server.state.index import Index
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.eventually import in_background, until

OBJECTS = 3_000
"""Three pages: of 500, of 2,000, and the rest."""


class Shown(Index[ACMEAccount]):
    """Counts how often it is shown each object; after the first one the API server fails so many times."""

    def __init__(self, api: FakeApiServer, failures: int) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.completions = 0
        self._api = api
        self._failures = failures

    def update(self, resource: ACMEAccount, deleted: bool, *, listed: bool = False) -> None:
        assert (deleted, listed) == (False, True)
        self.names[resource.metadata.name] += 1
        if self._failures:
            self._api.fail_next("list", ACCOUNTS.plural, 503, times=self._failures)
            self._failures = 0

    def mark_complete(self) -> None:
        self.completions += 1


async def listed(failures: int) -> tuple[Shown, int]:
    """What an index is shown by a list page by page, and how many requests that takes."""
    async with running_api() as api:
        api.streams = False
        for number in range(OBJECTS):
            api.put(ACCOUNTS, account(f"a{number:04}"))
        shown = Shown(api, failures)
        full_sync = FullSync(await api.cluster(), ACCOUNTS, shown)
        full_sync.request()
        async with in_background(full_sync.run(pause=0.01)):
            await full_sync.done.wait()
        return shown, sum(each.verb == "list" for each in api.requests)


async def test_every_object_is_shown_once_page_by_page() -> None:
    shown, requests = await listed(0)
    assert (shown.completions, requests) == (1, 3)
    assert len(shown.names) == shown.names.total() == OBJECTS


async def test_a_page_that_does_not_come_is_asked_for_again_and_for_less_but_the_list_does_not_begin_anew() -> None:
    shown, requests = await listed(3)
    # 500, three failures, 250 instead of 2,000, 2,000 and the rest.
    assert (shown.completions, requests) == (1, 7)
    assert len(shown.names) == shown.names.total() == OBJECTS


async def test_an_api_server_that_is_away_for_longer_costs_another_list() -> None:
    shown, requests = await listed(4)
    assert (shown.completions, requests) == (1, 1 + 4 + 3)
    assert len(shown.names) == OBJECTS
    assert max(shown.names.values()) == 2


@pytest.mark.parametrize(("cut", "lists"), [(None, 0), (OBJECTS // 2, 3)], ids=["whole", "cut"])
async def test_all_objects_come_in_one_stream_and_page_by_page_where_a_proxy_cuts_it(
    cut: int | None, lists: int
) -> None:
    async with running_api() as api:
        for number in range(OBJECTS):
            api.put(ACCOUNTS, account(f"a{number:04}"))
        api.cut_streams_after = cut
        shown = Shown(api, 0)
        full_sync = FullSync(await api.cluster(), ACCOUNTS, shown)
        full_sync.request()
        async with in_background(full_sync.run(pause=0.01)):
            await full_sync.done.wait()
        assert [each.verb for each in api.requests] == ["watch"] + ["list"] * lists
        assert (shown.completions, len(shown.names)) == (1, OBJECTS)
        assert OBJECTS <= shown.names.total() <= OBJECTS + (cut or 0)


@pytest.mark.requirement("M115", "SEC56")
async def test_after_a_gap_the_index_is_stale_until_the_next_list_has_ended() -> None:
    async with running_api() as api:
        index: Index[ACMEAccount] = Index()
        full_sync = FullSync(await api.cluster(), ACCOUNTS, index, namespaces=("pki", "other"))
        for name, namespace in (("a", "pki"), ("b", "other"), ("c", "unwatched")):
            api.put(ACCOUNTS, account(name, namespace=namespace))
        full_sync.request()
        async with in_background(full_sync.run(pause=0.01)):
            await until(lambda: index.complete)
            assert len(index) == 2
            api.remove(ACCOUNTS, "other", "b")
            api.fail_next("watch", ACCOUNTS.plural, 503)
            api.fail_next("list", ACCOUNTS.plural, 503, times=2)
            full_sync.request()
            assert not index.complete
            await until(lambda: index.complete)
            assert len(index) == 1
