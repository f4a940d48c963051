from __future__ import annotations

from functools import partial

import pytest

from acme_server.problems import Unavailable
from acme_server.state.account_keys import AccountKeys, account_name
from acme_server.state.index import Index
from acme_server.state.store import Store
from kms.resources.accounts import ACMEAccount
from kms.resources.kinds import ACCOUNTS
from tests.support.accounts import account
from tests.support.apiserver import running_api


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


class Known:
    """The account keys of an index that a test fills."""

    def __init__(self, count: int = 0, **options: int) -> None:
        self.index: Index[ACMEAccount] = Index()
        self.keys = AccountKeys(self.index, **options)
        for number in range(count):
            self.put(f"a{number}", f"key-{number}")
        self.is_account_key = self.keys.is_account_key

    def put(self, name: str, thumbprint: str, *, namespace: str = "pki", deleted: bool = False) -> None:
        self.index.update(account(name, thumbprint=thumbprint, namespace=namespace), deleted)


async def test_before_the_list_every_question_is_a_read() -> None:
    known, reads = Known(), Reads(finds=True)
    assert await known.is_account_key("key-a", reads)
    reads.finds = False
    assert not await known.is_account_key("key-b", reads)
    assert reads.count == 2


async def test_no_question_costs_anything_once_all_are_known() -> None:
    known, reads = Known(7), Reads()
    known.index.mark_complete()
    assert len(known.keys) == 7
    assert not await known.is_account_key("key-b", reads)
    assert await known.is_account_key("key-3", reads)
    known.put("new", "key-new", namespace="other")
    assert await known.is_account_key("key-new", reads)
    known.put("new", "key-new", namespace="other", deleted=True)
    assert await known.is_account_key("key-new", reads), "it was an account key all the same"
    assert reads.count == 0


@pytest.mark.requirement("M115", "SEC56")
async def test_after_a_gap_nothing_is_excluded_until_the_next_list() -> None:
    known, reads = Known(), Reads()
    known.index.mark_complete()
    known.index.mark_stale()
    assert not await known.is_account_key("key-b", reads)
    assert reads.count == 1
    known.index.mark_complete()
    assert not await known.is_account_key("key-b", reads)
    assert reads.count == 1


@pytest.mark.requirement("M115")
async def test_beyond_its_capacity_memory_excludes_nothing() -> None:
    known, reads = Known(7, capacity=5), Reads()
    known.index.mark_complete()
    assert len(known.keys) == 5
    assert not await known.is_account_key("key-b", reads)
    assert reads.count == 1


async def test_an_api_server_that_is_away_is_not_a_no() -> None:
    async with running_api() as api:
        store: Store[ACMEAccount] = Store(await api.cluster(), ACCOUNTS, capacity=1)
        api.fail_next("get", ACCOUNTS.plural, 503, times=9)
        with pytest.raises(Unavailable):
            await Known().is_account_key("key-a", partial(store.read_live, "pki", "a"))
