from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.problems import ProblemType, Refused
from acme_server.state.open_orders import OpenOrderQuota
from kms.resources.meta import LocalRef
from kms.resources.orders import ACMEOrder, StoredProblem
from tests.support.acmeorders import LIFETIME, NOW, order


def numbered(number: int, account: str = "account") -> ACMEOrder:
    made = order()
    return replace(
        made,
        metadata=replace(made.metadata, name=f"order-{number}"),
        spec=replace(made.spec, account_ref=LocalRef(name=account)),
    )


class Limited:
    def __init__(self, **options: int) -> None:
        self.now = NOW
        self.limits = OpenOrderQuota(clock=lambda: self.now, **options)

    def full(self, account: str = "account") -> bool:
        try:
            self.limits.admit("pki", account)
        except Refused:
            return True
        return False


def ended(open_: ACMEOrder, now: datetime = NOW) -> ACMEOrder:
    return transitions.failed(open_, StoredProblem(type="x", detail="x"), reason="X", now=now)


@pytest.mark.requirement("M40", "S154", "SEC38")
def test_an_account_may_have_so_many_open_orders_and_no_more() -> None:
    limited = Limited(maximum=3)
    for number in range(3):
        assert not limited.full()
        limited.limits.seen(numbered(number), False)
        limited.limits.seen(numbered(number), False)
    assert limited.full()
    assert not limited.full("another")
    limited.limits.seen(ended(numbered(0)), False)
    assert not limited.full()
    limited.limits.seen(numbered(7), False)
    limited.limits.seen(numbered(7), True)
    assert not limited.full()


@pytest.mark.requirement("M40", "S41", "C4")
def test_clients_are_asked_to_come_again_and_not_sent_away() -> None:
    limited = Limited(maximum=0)
    with pytest.raises(Refused) as caught:
        limited.limits.admit("pki", "account")
    assert caught.value.type == ProblemType.RATE_LIMITED
    assert caught.value.http_status == 503
    assert int(caught.value.headers["Retry-After"]) > 0


def test_orders_that_have_expired_do_not_count() -> None:
    limited = Limited(maximum=1)
    limited.limits.seen(numbered(0), False)
    assert limited.full()
    limited.now += LIFETIME + timedelta(seconds=1)
    assert not limited.full()


@pytest.mark.requirement("SEC38")
def test_memory_is_bounded_in_both_directions() -> None:
    limited = Limited(maximum=2, accounts=3)
    for account in range(50):
        for number in range(50):
            limited.limits.seen(numbered(number, f"account-{account}"), False)
    assert len(limited.limits._open) == 3
    assert all(len(each) == 2 for each in limited.limits._open.values())


def test_the_end_of_an_order_that_was_never_seen_is_no_news() -> None:
    limited = Limited()
    limited.limits.seen(ended(numbered(0)), False)
    assert not limited.limits._open
