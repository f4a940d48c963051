"""A survey of more objects than fit a page, by an API server that does not always answer."""

from __future__ import annotations

from collections import Counter

from acme_server.state.full_sync import FullSync
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.eventually import in_background

OBJECTS = 3_000
"""Three pages: of 500, of 2,000, and the rest."""


class Listener:
    """Counts how often it was shown each object; after the first one the API server fails so many times."""

    def __init__(self, api: FakeApiServer, failures: int) -> None:
        self.seen_names: Counter[str] = Counter()
        self.surveys = 0
        self._api = api
        self._failures = failures

    def seen(self, resource: ACMEAccount, deleted: bool) -> None:
        assert not deleted
        self.seen_names[resource.metadata.name] += 1
        if self._failures:
            self._api.fail_next("list", ACCOUNTS.plural, 503, times=self._failures)
            self._failures = 0

    def missed(self) -> None:
        pass

    def surveyed(self) -> None:
        self.surveys += 1


async def surveyed(failures: int) -> tuple[Listener, int]:
    """What a listener was shown by a survey, and how many lists that took."""
    async with running_api() as api:
        for number in range(OBJECTS):
            api.put(ACCOUNTS, account(f"a{number:04}"))
        listener = Listener(api, failures)
        survey = FullSync(await api.cluster(), ACCOUNTS, listener)
        survey.missed()
        async with in_background(survey.run(pause=0.01)):
            await survey.done.wait()
        return listener, sum(each.verb == "list" for each in api.requests)


async def test_every_object_is_shown_once_page_by_page() -> None:
    listener, lists = await surveyed(0)
    assert (listener.surveys, lists) == (1, 3)
    assert len(listener.seen_names) == listener.seen_names.total() == OBJECTS


async def test_a_page_that_does_not_come_is_asked_for_again_and_for_less_but_the_list_does_not_begin_anew() -> None:
    listener, lists = await surveyed(3)
    # 500, three failures, 250 instead of 2,000, 2,000 and the rest.
    assert (listener.surveys, lists) == (1, 7)
    assert len(listener.seen_names) == listener.seen_names.total() == OBJECTS


async def test_an_api_server_that_is_away_for_longer_costs_another_list() -> None:
    listener, lists = await surveyed(4)
    assert (listener.surveys, lists) == (1, 1 + 4 + 3)
    assert len(listener.seen_names) == OBJECTS
    assert max(listener.seen_names.values()) == 2
