from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace as replace_field
from datetime import timedelta
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from acme_server.accounts.slots import is_account
from acme_server.api.problems import status_of
from acme_server.model import Profile
from acme_server.orders import transitions
from acme_server.problems import ProblemType, Refused, Unavailable
from acme_server.state.index import Index
from acme_server.state.quotas import ObjectQuota, OpenOrderQuota, ProfileLimits, Usage
from acme_server.state.weight import weigh_order
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import LocalRef, Resource
from kms.resources.orders import ACMEOrder, Authorized, OrderStatus, StoredProblem
from kms.shares import share_of
from tests.support.accounts import account
from tests.support.acme import profile
from tests.support.acmeorders import LIFETIME, NOW, certified, order, proven

NOTHING = Usage()
NO_LIMITS = ProfileLimits()

T = TypeVar("T", bound=Resource)

pytestmark = pytest.mark.requirement("SEC38")


def loaded_index() -> Index[T]:
    """An index that has been filled once."""
    index: Index[T] = Index()
    index.mark_complete()
    return index


def numbered(number: int, account: str = "account", *, version: int = 1) -> ACMEOrder:
    one = order()
    return replace(
        one,
        metadata=replace(one.metadata, name=f"order-{number}", uid=f"uid-{number}", resource_version=str(version)),
        spec=replace(one.spec, account_ref=LocalRef(name=account)),
    )


@pytest.mark.requirement("SEC38")
def test_each_object_counts_once_until_it_is_gone() -> None:
    index: Index[ACMEOrder] = loaded_index()
    orders = ObjectQuota(index, "orders", maximum=10)
    for version, number in enumerate((1, 2, 2, 1)):
        index.update(numbered(number, version=version), False)
    assert (len(orders), orders.count("pki", "web"), orders.count("pki", "other")) == (2, 2, 0)
    for _ in range(2):
        index.update(numbered(1, version=9), True)
    assert (len(orders), orders.count("pki", "web")) == (1, 1)


def test_what_a_full_list_does_not_show_counts_no_more() -> None:
    index: Index[ACMEOrder] = loaded_index()
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
    index: Index[ACMEOrder] = loaded_index()
    orders = ObjectQuota(index, "orders", maximum=maximum)
    index.update(numbered(1), False)
    limits = ProfileLimits(objects=limit, objects_field="spec.maximum")
    with orders.hold(profile(), "", 1, limits):
        index.update(numbered(2), False)
    with pytest.raises(Refused) as caught, orders.hold(profile(), "", 1, limits):
        raise AssertionError
    assert (caught.value.type, status_of(caught.value)) == (ProblemType.RATE_LIMITED, 503)
    assert caught.value.retry_after == 300
    assert caught.value.detail == detail
    index.update(numbered(1), True)
    with orders.hold(profile(), "", 1, limits):
        pass


def test_aliases_of_accounts_take_room_and_count_for_no_profile() -> None:
    index: Index[ACMEAccount] = loaded_index()
    accounts = ObjectQuota(index, "accounts", maximum=2, counts_for_profile=is_account)
    one = account("a")
    index.update(one, False)
    index.update(replace(account("b"), spec=replace(one.spec, alias_of=LocalRef(name="a"))), False)
    assert (len(accounts), accounts.count("pki", "web")) == (2, 1)
    full = pytest.raises(Refused, match="This server has reached its limit")
    with full, accounts.hold(profile(), "", 1, ProfileLimits(objects=2)):
        raise AssertionError


def test_an_account_under_the_name_of_an_alias_counts_also_if_the_end_of_that_is_heard_of_late() -> None:
    index: Index[ACMEAccount] = loaded_index()
    accounts = ObjectQuota(index, "accounts", maximum=9, counts_for_profile=is_account)
    opened, ended = (replace(account("a").metadata, resource_version=each) for each in ("3", "2"))
    alias = replace(account("a"), spec=replace(account("a").spec, alias_of=LocalRef(name="b")))
    index.update(alias, False)
    index.update(replace(account("a"), metadata=opened), False)
    index.update(replace(alias, metadata=ended), True)
    assert (len(accounts), accounts.count("pki", "web"), accounts.count("pki", "")) == (1, 1, 0)


@pytest.mark.requirement("SEC72")
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from("ab"), st.sampled_from(("", "team")), st.booleans()), max_size=30
    )
)
def test_what_is_counted_is_what_exists(changes: list[tuple[int, str, str, bool]]) -> None:
    """Objects come, move to another account or tenant, and go, in any order; others are held meanwhile."""
    index: Index[ACMEOrder] = loaded_index()
    orders = ObjectQuota(
        index,
        "orders",
        maximum=1_000,
        weigh=lambda each: int(each.metadata.resource_version),
        account_of=lambda each: each.spec.account_ref.name,
        tenant_of=lambda each: each.tenant,
    )
    exist: dict[int, ACMEOrder] = {}
    with ExitStack() as stack:
        for version, (number, account, tenant, deleted) in enumerate(changes, 1):
            one = numbered(number, account, version=version)
            one = replace(one, spec=replace(one.spec, client_namespace=tenant or None))
            stack.enter_context(orders.hold(profile(), account, 1, NO_LIMITS, tenant=tenant))
            index.update(one, deleted)
            if not deleted:
                exist[number] = one
            else:
                exist.pop(number, None)
    octets = {number: int(each.metadata.resource_version) for number, each in exist.items()}
    assert {number: orders.octets_of(("pki", f"order-{number}")) for number in exist} == octets
    assert (len(orders), orders.octets(), orders.count("pki", "web")) == (len(exist), sum(octets.values()), len(exist))
    for account in "ab":
        own = [number for number, each in exist.items() if each.spec.account_ref.name == account]
        assert orders.usage_of_account(profile(), account) == Usage(len(own), sum(octets[number] for number in own))


def tenants(*namespaces: str) -> list[Profile]:
    """The profile "web" in each of these namespaces."""
    web = profile()
    metadata = [replace(web.resource.metadata, namespace=each) for each in namespaces]
    return [replace_field(web, resource=replace(web.resource, metadata=each)) for each in metadata]


def admitted(orders: ObjectQuota[ACMEOrder], of: Profile, account: str = "account", octets: int = 1) -> bool:
    """Whether the profile may have one more order."""
    try:
        with orders.hold(of, account, octets, NO_LIMITS):
            return True
    except Refused:
        return False


def fill(index: Index[ACMEOrder], orders: ObjectQuota[ACMEOrder], of: Profile, account: str = "account") -> int:
    """Store orders of the account until no more are admitted. Returns how many."""
    count = 0
    while admitted(orders, of, account):
        one = numbered(count, account)
        metadata = replace(one.metadata, namespace=of.namespace, name=f"{account}-{count}")
        index.update(replace(one, metadata=metadata), False)
        count += 1
    return count


@pytest.mark.requirement("SEC75")
def test_however_greedy_some_namespaces_are_there_is_room_for_one_more() -> None:
    index: Index[ACMEOrder] = loaded_index()
    orders = ObjectQuota(index, "orders", maximum=1000, namespace_share=0.5)
    taken = [fill(index, orders, each) for each in tenants("a", "b", "c", "d")]
    assert taken == [500, 250, 125, 63]
    (late,) = tenants("e")
    assert admitted(orders, late)


@pytest.mark.requirement("SEC75")
@given(
    whole=st.integers(1, 10**9),
    demands=st.lists(st.integers(0, 10**9), max_size=20),
    share=st.integers(1, 99).map(lambda percent: percent / 100),
)
def test_shares_never_exceed_the_whole_and_leave_something(whole: int, demands: list[int], share: float) -> None:
    used = 0
    for demand in demands:
        used += min(demand, share_of(whole, used, share))
    assert used <= whole
    left = whole - used
    assert share_of(whole, used, share) >= left * share
    assert share_of(whole, used, 1.0) == left


@pytest.mark.requirement("SEC72", "SEC75")
def test_one_account_leaves_room_for_the_others_of_its_namespace() -> None:
    index: Index[ACMEOrder] = loaded_index()
    orders = ObjectQuota(
        index,
        "orders",
        maximum=1000,
        namespace_share=0.5,
        account_share=0.5,
        account_of=lambda order: order.spec.account_ref.name,
    )
    here, there = tenants("here", "there")
    assert [fill(index, orders, here, account) for account in ("a", "b")] == [250, 125]
    assert admitted(orders, here, "c")
    assert admitted(orders, there, "a")
    with pytest.raises(Refused, match=r"^rateLimited: The account has reached its share of 188 orders\.$"):
        orders.hold(here, "a", 1, NO_LIMITS).__enter__()


@pytest.mark.requirement("SEC72")
@pytest.mark.parametrize(
    ("options", "octets", "limits", "detail"),
    [
        ({}, 101, NO_LIMITS, "This server has reached its limit of 2.0 MiB of orders."),
        ({"namespace_share": 0.5}, 1, NO_LIMITS, "Namespace pki has reached its share of 1.0 MiB of orders."),
        (
            {},
            1,
            ProfileLimits(octets=2**20, octets_field="spec.maximumOrderBytes"),
            "Profile pki/web has reached its limit of 1.0 MiB of orders (spec.maximumOrderBytes).",
        ),
    ],
)
def test_octets_are_limited_like_numbers(
    options: dict[str, float], octets: int, limits: ProfileLimits, detail: str
) -> None:
    index: Index[ACMEOrder] = loaded_index()
    orders = ObjectQuota(
        index,
        "orders",
        maximum=10,
        maximum_octets=2**21,
        weigh=lambda _: 2**21 - 100 if not options and limits is NO_LIMITS else 2**20,
        **options,  # type: ignore[arg-type]
    )
    index.update(numbered(1), False)
    with pytest.raises(Refused) as caught, orders.hold(profile(), "account", octets, limits):
        pytest.fail("it was admitted")
    assert caught.value.detail == detail
    index.update(numbered(1, version=2), True)
    assert orders.octets() == 0
    with orders.hold(profile(), "account", octets, limits):
        assert orders.octets() == octets
    assert orders.octets() == 0


@pytest.mark.requirement("SEC73")
def test_renewals_may_use_the_reserve_and_no_more() -> None:
    index: Index[ACMEOrder] = loaded_index()
    orders = ObjectQuota(index, "orders", maximum=1000, reserve=0.1)
    limits = ProfileLimits(objects=20, objects_field="spec.maximum")
    for number in range(20):
        index.update(numbered(number), False)
    with pytest.raises(Refused):
        orders.hold(profile(), "account", 1, limits).__enter__()
    for number in range(20, 22):
        with orders.hold(profile(), "account", 1, limits, renewal=True):
            index.update(numbered(number), False)
    with pytest.raises(Refused, match="its limit of 20 orders"):
        orders.hold(profile(), "account", 1, limits, renewal=True).__enter__()


@pytest.mark.requirement("SEC72")
def test_orders_that_are_finalized_fit_into_the_reserve() -> None:
    index: Index[ACMEOrder] = loaded_index()
    orders = ObjectQuota(index, "orders", maximum=9, maximum_octets=1000, reserve=0.1, weigh=lambda _: 1000)
    index.update(numbered(1), False)
    orders.require_room(100)
    with pytest.raises(Refused) as caught:
        orders.require_room(101)
    assert (caught.value.type, status_of(caught.value)) == (ProblemType.RATE_LIMITED, 503)


class Limited:
    """The open orders of an index that a test fills."""

    def __init__(self, **options: float) -> None:
        self.now = NOW
        self.index: Index[ACMEOrder] = loaded_index()
        orders = ObjectQuota(self.index, "orders", maximum=1_000, weigh=weigh_order)
        self.quota = OpenOrderQuota(
            self.index,
            octets_of=orders.octets_of,
            clock=lambda: self.now,
            **options,  # type: ignore[arg-type]
        )
        self._version = 0

    def put(self, order: ACMEOrder, *, deleted: bool = False) -> None:
        self._version += 1
        metadata = replace(order.metadata, resource_version=str(self._version))
        self.index.update(replace(order, metadata=metadata), deleted)

    def full(
        self, account: str = "account", octets: int = 0, *, renewal: bool = False, stored: Usage = NOTHING
    ) -> bool:
        try:
            with self.quota.hold("pki", account, octets, stored=stored, renewal=renewal):
                return False
        except Refused:
            return True


def certified_as(number: int, account: str = "account") -> ACMEOrder:
    return replace(certified(), metadata=numbered(number).metadata, spec=numbered(number, account).spec)


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
    limited.put(certified_as(0))
    assert not limited.full()
    limited.put(numbered(7))
    limited.put(numbered(7), deleted=True)
    assert not limited.full()


@pytest.mark.requirement("SEC72")
def test_orders_that_failed_count_for_a_day() -> None:
    limited = Limited(maximum=2)
    limited.put(ended(numbered(0)))
    limited.put(numbered(1))
    assert limited.full()
    limited.now += timedelta(days=1, seconds=1)
    assert not limited.full()


@pytest.mark.requirement("SEC72")
def test_an_account_with_certificates_may_fail_as_often_more() -> None:
    limited = Limited(maximum=2)
    for number in range(3):
        limited.put(ended(numbered(number)))
    assert limited.full(stored=Usage(3))
    assert limited.full(stored=Usage(4))
    assert not limited.full(stored=Usage(5))


@pytest.mark.requirement("SEC72")
def test_open_orders_are_weighed() -> None:
    weight = weigh_order(numbered(0))
    limited = Limited(maximum_octets=3 * weight)
    limited.put(numbered(0))
    limited.put(ended(numbered(1)))
    assert not limited.full(octets=weight)
    assert limited.full(octets=2 * weight)
    assert not limited.full("another", octets=2 * weight)


@pytest.mark.requirement("SEC72", "SEC73")
def test_requests_that_come_at_once_are_admitted_one_by_one() -> None:
    limited = Limited(maximum=2, reserve=0.5)
    with limited.quota.hold("pki", "account", 1, stored=Usage(1)):
        assert not limited.full(stored=Usage(2))
        with limited.quota.hold("pki", "account", 1, stored=Usage(2)):
            assert limited.full(stored=Usage(2))
            assert not limited.full(stored=Usage(2), renewal=True)
            with limited.quota.hold("pki", "account", 1, stored=Usage(2), renewal=True):
                assert limited.full(stored=Usage(3), renewal=True)
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
    with pytest.raises(Refused) as caught, limited.quota.hold("pki", "account", 0, stored=NOTHING):
        pytest.fail("it was admitted")
    assert caught.value.type == ProblemType.RATE_LIMITED
    assert status_of(caught.value) == 503
    assert caught.value.retry_after == 30


def test_orders_that_were_abandoned_count_until_they_are_deleted() -> None:
    limited = Limited(maximum=1)
    limited.put(numbered(0))
    limited.now += LIFETIME + timedelta(seconds=1)
    assert limited.full()
    limited.now += timedelta(days=1)
    assert not limited.full()


@pytest.mark.requirement("SEC38")
def test_memory_is_bounded_by_the_orders_that_are_open() -> None:
    limited = Limited()
    opened = [numbered(number, f"account-{number % 50}") for number in range(250)]
    for each in opened:
        limited.put(each)
    assert len(limited.quota) == 250
    for number in range(250):
        limited.put(certified_as(number, f"account-{number % 50}"))
    assert len(limited.quota) == 0


def test_before_the_first_full_list_nothing_is_admitted_and_a_gap_in_the_watch_stops_nothing() -> None:
    """Objects that were not listed yet count for a limit, too."""
    index: Index[ACMEOrder] = Index()
    orders = ObjectQuota(index, "orders", maximum=10)
    with pytest.raises(Unavailable) as caught, orders.hold(profile(), "account", 1, NO_LIMITS):
        pass
    assert caught.value.retry_after
    index.mark_complete()
    index.mark_stale()
    with orders.hold(profile(), "account", 1, NO_LIMITS):
        assert len(orders) == 1
