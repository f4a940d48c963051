from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from acme_server.problems import Unavailable
from acme_server.state.account_keys import AccountKeys, account_name
from acme_server.state.full_sync import FullSync
from acme_server.state.store import Store
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS
from tests.support.accounts import account
from tests.support.apiserver import FakeApiServer, running_api
from tests.support.eventually import until


@pytest.mark.requirement("M82", "M158")
def test_names_of_accounts_follow_from_profile_and_key() -> None:
    name = account_name("pki", "web", "thumb")
    assert len(name) == 52
    assert name == name.lower()
    assert len({name, account_name("pk", "iweb", "thumb"), account_name("pki", "web", "other")}) == 3


class Reads:
    """Counts live reads; each finds an account or none."""

    def __init__(self, *, finds: bool = False) -> None:
        self.finds = finds
        self.count = 0

    async def __call__(self) -> ACMEAccount | None:
        self.count += 1
        return account("a") if self.finds else None


@asynccontextmanager
async def listed(
    known: AccountKeys, api: FakeApiServer, namespaces: tuple[str, ...] = ()
) -> AsyncIterator[FullSync[ACMEAccount]]:
    """As many accounts in mind as there are on the API server, or as find room."""
    survey = FullSync(await api.cluster(), ACCOUNTS, known, namespaces=namespaces)
    task = asyncio.create_task(survey.run(pause=0.01))
    survey.missed()
    await until(lambda: known._complete or len(known) == known._capacity)
    yield survey
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def put_accounts(api: FakeApiServer, count: int) -> None:
    for number in range(count):
        api.put(ACCOUNTS, account(f"a{number}", thumbprint=f"key-{number}"))


async def test_before_the_list_every_question_is_a_read() -> None:
    known, reads = AccountKeys(), Reads(finds=True)
    assert await known.is_account_key("key-a", reads)
    reads.finds = False
    assert not await known.is_account_key("key-b", reads)
    assert reads.count == 2


async def test_no_question_costs_anything_once_all_are_known() -> None:
    async with running_api() as api:
        put_accounts(api, 7)
        known, reads = AccountKeys(), Reads()
        async with listed(known, api):
            assert len(known) == 7
            assert not await known.is_account_key("key-b", reads)
            assert await known.is_account_key("key-3", reads)
            known.seen(account("new", namespace="other", thumbprint="key-new"), False)
            assert await known.is_account_key("key-new", reads)
            known.seen(account("gone", thumbprint="key-gone"), True)
            assert await known.is_account_key("key-gone", reads)
            assert reads.count == 0


@pytest.mark.requirement("M115", "SEC56")
async def test_after_a_gap_nothing_is_excluded_until_the_next_list() -> None:
    async with running_api() as api:
        known, reads = AccountKeys(), Reads()
        async with listed(known, api, namespaces=("pki", "other")) as survey:
            api.fail_next("list", ACCOUNTS.plural, 503, times=2)
            survey.missed()
            assert not await known.is_account_key("key-b", reads)
            assert reads.count == 1
            await until(lambda: known._complete)
            assert not await known.is_account_key("key-b", reads)
            assert reads.count == 1


@pytest.mark.requirement("M115")
async def test_beyond_its_capacity_memory_excludes_nothing() -> None:
    async with running_api() as api:
        put_accounts(api, 7)
        known, reads = AccountKeys(capacity=5), Reads()
        async with listed(known, api):
            assert len(known) == 5
            assert not await known.is_account_key("key-b", reads)
            assert reads.count == 1


async def test_an_api_server_that_is_away_is_not_a_no() -> None:
    async with running_api() as api:
        store: Store[ACMEAccount] = Store(await api.cluster(), ACCOUNTS, capacity=1)
        api.fail_next("get", ACCOUNTS.plural, 503, times=9)
        with pytest.raises(Unavailable):
            await AccountKeys().is_account_key("key-a", partial(store.fresh, "pki", "a"))
