from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from acme_server.accounts import slots
from kms.resources.accounts import AccountState, AccountStatus, ACMEAccount
from tests.support.accounts import account

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def claim(version: int, state: AccountState | None = None, age: float = 0) -> ACMEAccount:
    made = account(f"a{version}")
    meta = replace(
        made.metadata,
        uid=f"uid-{version}",
        resource_version=str(version),
        creation_timestamp=NOW - timedelta(seconds=age),
    )
    return replace(made, metadata=meta, status=AccountStatus(state=state))


states = st.sampled_from([None, *get_args(AccountState)])


@pytest.mark.requirement("SEC12")
@given(st.lists(st.tuples(st.integers(1, 100), states), min_size=1, max_size=12, unique_by=lambda each: each[0]))
def test_everybody_sees_the_same_order(pairs: list[tuple[int, AccountState | None]]) -> None:
    accounts = [claim(*each) for each in pairs]
    standings = [slots.count_before(each, accounts) for each in accounts]
    assert sorted(standings) == list(range(len(accounts)))
    opened = [slots.count_before(each, accounts) for each in accounts if slots.is_open(each)]
    assert all(each < len(opened) for each in opened)


def test_versions_are_compared_as_numbers() -> None:
    assert slots.count_before(claim(10), [claim(9), claim(10)]) == 1


def test_only_what_was_never_opened_goes_stale() -> None:
    assert not slots.is_stale(claim(1, None, age=50), now=NOW)
    assert slots.is_stale(claim(1, None, age=61), now=NOW)
    assert not slots.is_stale(claim(1, "valid", age=1e6), now=NOW)
    assert not slots.is_stale(claim(1, "deactivated", age=1e6), now=NOW)
