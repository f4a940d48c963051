from __future__ import annotations

import pytest
from msgspec.structs import replace

from acme_server.accounts.slots import is_account
from acme_server.problems import ProblemType, Refused
from acme_server.state.quotas import ObjectQuota
from kms.resources.meta import LocalRef
from kms.resources.orders import ACMEOrder
from tests.support.accounts import account
from tests.support.acme import profile
from tests.support.acmeorders import order

pytestmark = pytest.mark.requirement("SEC38")


def numbered(number: int) -> ACMEOrder:
    one = order()
    return replace(one, metadata=replace(one.metadata, name=f"order-{number}", uid=f"uid-{number}"))


@pytest.mark.requirement("SEC38")
def test_each_object_counts_once_until_it_is_gone() -> None:
    orders = ObjectQuota("orders", maximum=10)
    for number in (1, 2, 2, 1):
        orders.seen(numbered(number), False)
    assert (len(orders), orders.of("pki", "web"), orders.of("pki", "other")) == (2, 2, 0)
    orders.seen(numbered(1), True)
    orders.seen(numbered(1), True)
    assert (len(orders), orders.of("pki", "web")) == (1, 1)


def test_what_a_survey_does_not_confirm_counts_no_more() -> None:
    orders = ObjectQuota("orders", maximum=10)
    for number in (1, 2, 3):
        orders.seen(numbered(number), False)
    orders.missed()
    orders.seen(numbered(2), False)
    orders.seen(numbered(4), False)
    assert len(orders) == 4
    orders.surveyed()
    assert (len(orders), orders.of("pki", "web")) == (2, 2)


@pytest.mark.requirement("M40", "SEC38", "C4")
@pytest.mark.parametrize(
    ("maximum", "limit", "detail"),
    [
        (2, None, "There are the 2 orders that this server may keep."),
        (9, 2, "Profile pki/web has the 2 orders that it may have (spec.maximum)."),
    ],
)
def test_beyond_the_limit_clients_are_told_to_come_again(maximum: int, limit: int | None, detail: str) -> None:
    orders = ObjectQuota("orders", maximum=maximum)
    orders.seen(numbered(1), False)
    orders.admit(profile(), limit=limit, field="spec.maximum")
    orders.seen(numbered(2), False)
    with pytest.raises(Refused) as caught:
        orders.admit(profile(), limit=limit, field="spec.maximum")
    assert (caught.value.type, caught.value.http_status) == (ProblemType.RATE_LIMITED, 503)
    assert caught.value.headers == {"Retry-After": "300"}
    assert caught.value.detail == detail
    orders.seen(numbered(1), True)
    orders.admit(profile(), limit=limit, field="spec.maximum")


def test_aliases_of_accounts_take_room_and_count_for_no_profile() -> None:
    accounts = ObjectQuota("accounts", maximum=2, by_profile=is_account)
    one = account("a")
    accounts.seen(one, False)
    accounts.seen(replace(account("b"), spec=replace(one.spec, alias_of=LocalRef(name="a"))), False)
    assert (len(accounts), accounts.of("pki", "web")) == (2, 1)
    with pytest.raises(Refused, match="this server may keep"):
        accounts.admit(profile(), limit=2, field="spec.enrollment.acme.maximumAccounts")
