from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from acme_server.problems import Unavailable
from acme_server.state.index import Index
from acme_server.state.quotas import ObjectQuota
from acme_server.state.write_rate import WriteRate
from kms.resources.orders import ACMEOrder
from tests.support.acmeorders import NOW, order

pytestmark = pytest.mark.requirement("SEC72", "SEC75")


class Rate:
    """A rate of 1,000 octets in ten minutes, with a clock of its own."""

    def __init__(self, share: float = 1.0, tenant_share: float = 1.0) -> None:
        self.now = NOW
        self.rate = WriteRate(clock=lambda: self.now, maximum=1_000, namespace_share=share, tenant_share=tenant_share)

    def admits(self, namespace: str, *, tenant: str = "", urgent: bool = False) -> bool:
        try:
            self.rate.admit(namespace, tenant, urgent=urgent)
        except Unavailable:
            return False
        return True


def test_what_was_written_counts_for_ten_minutes() -> None:
    one = Rate()
    for minute in range(4):
        assert one.admits("a")
        one.rate.add("a", 250)
        one.now = NOW + timedelta(minutes=minute)
    assert not one.admits("a")
    assert one.rate.written() == 1_000
    one.now = NOW + timedelta(minutes=11)
    assert one.admits("a")
    one.now = NOW + timedelta(minutes=30)
    assert one.rate.written() == 0


def test_one_namespace_at_its_limit_leaves_others_theirs() -> None:
    one = Rate(share=0.5)
    one.rate.add("a", 500)
    assert not one.admits("a")
    assert one.admits("b")
    one.rate.add("b", 250)
    assert not one.admits("b")
    assert one.admits("c")


def test_clients_of_one_namespace_leave_others_of_the_same_profile_theirs() -> None:
    index: Index[ACMEOrder] = Index()
    one = Rate(share=0.8, tenant_share=0.5)
    ObjectQuota(
        index, "orders", maximum=9, write_rate=one.rate, weigh=lambda _: 400, tenant_of=lambda each: each.tenant
    )
    index.mark_complete()
    index.update(of_clients("team-a"), False)
    assert not one.admits("pki", tenant="team-a")  # before: until 800 octets were written
    assert one.admits("pki", tenant="team-a", urgent=True)
    assert one.admits("pki", tenant="team-b")
    assert one.admits("pki")


def of_clients(namespace: str) -> ACMEOrder:
    return replace(order(), spec=replace(order().spec, client_namespace=namespace))


@pytest.mark.requirement("SEC67")
def test_a_clock_that_was_wrong_for_a_moment_stops_nobody_for_longer() -> None:
    one = Rate()
    one.now = NOW + timedelta(days=1)
    one.rate.add("a", 1_000)
    one.now = NOW
    one.rate.add("a", 1)
    one.now = NOW + timedelta(minutes=30)
    assert one.admits("a")  # before: not for a day
    assert one.rate.written() == 0


@pytest.mark.requirement("SEC73")
def test_what_is_urgent_may_use_the_reserve_and_no_more() -> None:
    one = Rate()
    one.rate.add("a", 1_050)
    assert not one.admits("a")
    assert one.admits("a", urgent=True)
    one.rate.add("a", 50)
    assert not one.admits("a", urgent=True)


@pytest.mark.requirement("SEC73")
def test_what_is_urgent_does_not_wait_for_a_share() -> None:
    one = Rate(share=0.5)
    one.rate.add("a", 700)
    assert not one.admits("a")
    assert one.admits("a", urgent=True)


def test_versions_are_counted_and_what_is_listed_at_the_start_is_not() -> None:
    one, index = Rate(), Index[ACMEOrder]()
    quota = ObjectQuota(index, "orders", maximum=9, write_rate=one.rate, weigh=lambda _: 100)
    index.update(order(), False)
    assert one.rate.written() == 0
    index.mark_complete()
    index.update(order(), False)
    assert one.rate.written() == 0, "the same version"
    for number in range(2, 5):
        metadata = replace(order().metadata, resource_version=str(number))
        index.update(replace(order(), metadata=metadata), False)
    assert one.rate.written() == 300
    assert len(quota) == 1
