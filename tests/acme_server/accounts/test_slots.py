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
    claims = [each.metadata for each in accounts if not slots.is_open(each)]
    opened = [each.metadata for each in accounts if slots.is_open(each)]
    standings = [slots.count_before(each, claims=claims, opened=opened) for each in claims]
    assert sorted(standings) == list(range(len(opened), len(accounts)))


def test_a_claim_that_is_opened_between_the_lists_counts_once() -> None:
    mine, other = claim(10).metadata, claim(9).metadata
    opened = replace(other, resource_version="11")
    assert slots.count_before(mine, claims=[mine, other], opened=[opened]) == 1


def test_versions_are_compared_as_numbers() -> None:
    claims = [claim(9).metadata, claim(10).metadata]
    assert slots.count_before(claims[1], claims=claims, opened=()) == 1


def test_only_what_was_never_opened_goes_stale() -> None:
    assert not slots.is_stale(claim(1, None, age=50), now=NOW)
    assert slots.is_stale(claim(1, None, age=61), now=NOW)
    assert not slots.is_stale(claim(1, "valid", age=1e6), now=NOW)
    assert not slots.is_stale(claim(1, "deactivated", age=1e6), now=NOW)
