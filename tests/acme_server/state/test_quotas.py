from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.accounts.slots import is_account
from acme_server.api.problems import status_of
from acme_server.orders import transitions
from acme_server.problems import ProblemType, Refused
from acme_server.state.index import Index
from acme_server.state.quotas import ObjectQuota, OpenOrderQuota
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import LocalRef
from kms.resources.orders import ACMEOrder, Authorized, OrderStatus, StoredProblem
from tests.support.accounts import account
from tests.support.acme import profile
from tests.support.acmeorders import LIFETIME, NOW, order, proven

pytestmark = pytest.mark.requirement("SEC38")


def numbered(number: int, account: str = "account", *, version: int = 1) -> ACMEOrder:
    one = order()
    return replace(
        one,
        metadata=replace(one.metadata, name=f"order-{number}", uid=f"uid-{number}", resource_version=str(version)),
        spec=replace(one.spec, account_ref=LocalRef(name=account)),
    )


@pytest.mark.requirement("SEC38")
def test_each_object_counts_once_until_it_is_gone() -> None:
    index: Index[ACMEOrder] = Index()
    orders = ObjectQuota(index, "orders", maximum=10)
    for version, number in enumerate((1, 2, 2, 1)):
        index.update(numbered(number, version=version), False)
    assert (len(orders), orders.count("pki", "web"), orders.count("pki", "other")) == (2, 2, 0)
    for _ in range(2):
        index.update(numbered(1, version=9), True)
    assert (len(orders), orders.count("pki", "web")) == (1, 1)


def test_what_a_full_list_does_not_show_counts_no_more() -> None:
    index: Index[ACMEOrder] = Index()
    orders = ObjectQuota(index, "orders", maximum=10)
    for number in (1, 2, 3):
        index.update(numbered(number), False)
    index.mark_stale()
    for number in (2, 4):
        index.update(numbered(number), False)
    assert len(orders) == 4
    index.mark_complete()
    assert (len(orders), orders.count("pki", "web")) == (2, 2)


@pytest.mark.requirement("M40", "SEC38", "C4")
@pytest.mark.parametrize(
    ("maximum", "limit", "detail"),
    [
        (2, None, "This server has reached its limit of 2 orders."),
        (9, 2, "Profile pki/web has reached its limit of 2 orders (spec.maximum)."),
    ],
)
def test_beyond_the_limit_clients_are_told_to_come_again(maximum: int, limit: int | None, detail: str) -> None:
    index: Index[ACMEOrder] = Index()
    orders = ObjectQuota(index, "orders", maximum=maximum)
    index.update(numbered(1), False)
    orders.admit(profile(), limit=limit, field="spec.maximum")
    index.update(numbered(2), False)
    with pytest.raises(Refused) as caught:
        orders.admit(profile(), limit=limit, field="spec.maximum")
    assert (caught.value.type, status_of(caught.value)) == (ProblemType.RATE_LIMITED, 503)
    assert caught.value.retry_after == 300
    assert caught.value.detail == detail
    index.update(numbered(1), True)
    orders.admit(profile(), limit=limit, field="spec.maximum")


def test_aliases_of_accounts_take_room_and_count_for_no_profile() -> None:
    index: Index[ACMEAccount] = Index()
    accounts = ObjectQuota(index, "accounts", maximum=2, counts_for_profile=is_account)
    one = account("a")
    index.update(one, False)
    index.update(replace(account("b"), spec=replace(one.spec, alias_of=LocalRef(name="a"))), False)
    assert (len(accounts), accounts.count("pki", "web")) == (2, 1)
    with pytest.raises(Refused, match="This server has reached its limit"):
        accounts.admit(profile(), limit=2, field="spec.enrollment.acme.maximumAccounts")


def test_an_account_under_the_name_of_an_alias_counts_also_if_the_end_of_that_is_heard_of_late() -> None:
    index: Index[ACMEAccount] = Index()
    accounts = ObjectQuota(index, "accounts", maximum=9, counts_for_profile=is_account)
    opened, ended = (replace(account("a").metadata, resource_version=each) for each in ("3", "2"))
    alias = replace(account("a"), spec=replace(account("a").spec, alias_of=LocalRef(name="b")))
    index.update(alias, False)
    index.update(replace(account("a"), metadata=opened), False)
    index.update(replace(alias, metadata=ended), True)
    assert (len(accounts), accounts.count("pki", "web"), accounts.count("pki", "")) == (1, 1, 0)


class Limited:
    """The open orders of an index that a test fills."""

    def __init__(self, **options: int) -> None:
        self.now = NOW
        self.index: Index[ACMEOrder] = Index()
        self.quota = OpenOrderQuota(self.index, clock=lambda: self.now, **options)
        self._version = 0

    def put(self, order: ACMEOrder, *, deleted: bool = False) -> None:
        self._version += 1
        metadata = replace(order.metadata, resource_version=str(self._version))
        self.index.update(replace(order, metadata=metadata), deleted)

    def full(self, account: str = "account") -> bool:
        try:
            self.quota.admit("pki", account)
        except Refused:
            return True
        return False


def ended(open_: ACMEOrder) -> ACMEOrder:
    return transitions.failed(open_, StoredProblem(type="x", detail="x"), reason="X", now=NOW)


@pytest.mark.requirement("M40", "S154", "SEC38")
def test_an_account_may_have_so_many_open_orders_and_no_more() -> None:
    limited = Limited(maximum=3)
    for number in range(3):
        assert not limited.full()
        limited.put(numbered(number))
        limited.put(numbered(number))
    assert limited.full()
    assert not limited.full("another")
    limited.put(ended(numbered(0)))
    assert not limited.full()
    limited.put(numbered(7))
    limited.put(numbered(7), deleted=True)
    assert not limited.full()


def test_an_authorization_without_an_order_counts_until_it_is_valid() -> None:
    limited = Limited(maximum=1)
    pre_authorization = replace(order(), spec=replace(order().spec, preauthorization=True))
    limited.put(pre_authorization)
    assert limited.full()
    limited.put(proven(pre_authorization))
    assert not limited.full()


def test_an_authorization_without_an_order_that_needs_no_proof_does_not_count() -> None:
    limited = Limited(maximum=1)
    one = order()
    given = Authorized(authorization=0, type="http-01", validated=NOW, expires=NOW + LIFETIME)
    spec = replace(one.spec, preauthorization=True, authorized=(given,))
    limited.put(replace(one, spec=spec, status=OrderStatus()))  # as it is stored and listed
    assert not limited.full()


@pytest.mark.requirement("M40", "S41", "C4")
def test_clients_are_asked_to_come_again_and_not_sent_away() -> None:
    limited = Limited(maximum=0)
    with pytest.raises(Refused) as caught:
        limited.quota.admit("pki", "account")
    assert caught.value.type == ProblemType.RATE_LIMITED
    assert status_of(caught.value) == 503
    assert caught.value.retry_after == 30


def test_orders_that_have_expired_do_not_count() -> None:
    limited = Limited(maximum=1)
    limited.put(numbered(0))
    assert limited.full()
    limited.now += LIFETIME + timedelta(seconds=1)
    assert not limited.full()


@pytest.mark.requirement("SEC38")
def test_memory_is_bounded_by_the_orders_that_are_open() -> None:
    limited = Limited()
    opened = [numbered(number, f"account-{number % 50}") for number in range(250)]
    for each in opened:
        limited.put(each)
    assert len(limited.quota) == 250
    for each in opened:
        limited.put(ended(each))
    assert len(limited.quota) == 0
