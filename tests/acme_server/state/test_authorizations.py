"""The valid authorizations of accounts."""

from __future__ import annotations

import gc
import tracemalloc
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.state.authorizations import Authorizations, Holder, own_authorization
from acme_server.state.index import Index
from kms.resources.orders import ACMEOrder, Authorized, Identifier, with_authorizations
from tests.support.acmeorders import LIFETIME, NOW, order, proven

WWW = "www.example.com"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> object:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def orders() -> Index[ACMEOrder]:
    return Index()


@pytest.fixture
def authorizations(orders: Index[ACMEOrder], clock: Clock) -> Authorizations:
    return Authorizations(orders, clock=clock)  # type: ignore[arg-type]  # the time of this clock is a datetime


def holder(value: str = WWW, account: str = "account") -> Holder:
    return Holder("pki", account, Identifier(type="dns", value=value))


def named(order: ACMEOrder, name: str, *, version: int = 2) -> ACMEOrder:
    return replace(order, metadata=replace(order.metadata, name=name, resource_version=str(version)))


def deactivated(order: ACMEOrder, position: int = 0) -> ACMEOrder:
    return transitions.deactivated(order, position, now=NOW)


@pytest.mark.requirement("M122")
def test_a_proof_is_found_by_account_and_identifier(orders: Index[ACMEOrder], authorizations: Authorizations) -> None:
    orders.update(named(proven(order(WWW, "*.apps.example.com")), "a"), False)
    found = authorizations.find(holder())
    assert found is not None
    assert (found.order, found.position, found.type, found.validated) == ("a", 0, "http-01", NOW)
    assert found.expires == NOW + LIFETIME
    assert authorizations.find(holder(account="other")) is None
    assert authorizations.find(Holder("other", "account", Identifier(type="dns", value=WWW))) is None


@pytest.mark.requirement("M57")
def test_a_wildcard_and_its_base_name_are_not_the_same(
    orders: Index[ACMEOrder], authorizations: Authorizations
) -> None:
    orders.update(named(proven(order("*.example.com")), "a"), False)
    assert authorizations.find(holder("*.example.com")) is not None
    assert authorizations.find(holder("example.com")) is None


def test_what_is_not_proven_is_no_proof(orders: Index[ACMEOrder], authorizations: Authorizations) -> None:
    orders.update(order(), False)
    orders.update(named(proven(order(WWW, "b.example.com"), 1), "a"), False)
    assert authorizations.find(holder()) is None
    assert authorizations.find(holder("b.example.com")) is not None


@pytest.mark.requirement("SEC50")
def test_what_was_taken_without_proof_or_from_another_order_is_no_proof(
    orders: Index[ACMEOrder], authorizations: Authorizations
) -> None:
    references: tuple[dict[str, Any], ...] = ({}, {"order": "earlier", "position": 0})
    for reference in references:
        given = Authorized(authorization=0, type="http-01", validated=NOW, expires=NOW + LIFETIME, **reference)
        unproven = order()
        relying = replace(unproven, spec=replace(unproven.spec, authorized=(given,)), status=type(unproven.status)())
        relying = with_authorizations(relying)
        assert relying.status.state == "ready"
        orders.update(relying, False)
        assert len(authorizations) == 0
        assert own_authorization(relying, 0) is None


@pytest.mark.requirement("M135")
def test_a_deactivated_authorization_is_none(
    orders: Index[ACMEOrder],
    authorizations: Authorizations,
) -> None:
    valid = named(proven(order(WWW, "b.example.com")), "a", version=2)
    orders.update(valid, False)
    orders.update(named(deactivated(valid), "a", version=3), False)
    assert authorizations.find(holder()) is None
    assert not authorizations.holds(holder(), "a", 0)
    assert authorizations.find(holder("b.example.com")) is not None


def test_an_order_that_is_gone_proves_nothing(orders: Index[ACMEOrder], authorizations: Authorizations) -> None:
    valid = named(proven(order()), "a")
    orders.update(valid, False)
    orders.update(named(valid, "a", version=3), True)
    assert len(authorizations) == 0


def test_the_newest_proof_is_kept(orders: Index[ACMEOrder], authorizations: Authorizations) -> None:
    later = NOW + timedelta(minutes=1)
    orders.update(named(proven(order(), at=later), "newer"), False)
    orders.update(named(proven(order()), "older", version=9), False)
    found = authorizations.find(holder())
    assert found is not None
    assert found.order == "newer"
    assert not authorizations.holds(holder(), "older", 0)
    orders.update(named(deactivated(proven(order(), at=later)), "newer", version=10), False)
    assert authorizations.find(holder()) is None


@pytest.mark.requirement("SEC67")
def test_proofs_end_and_take_no_memory_then(
    orders: Index[ACMEOrder], authorizations: Authorizations, clock: Clock
) -> None:
    many = named(proven(order(*(f"{number}.example.com" for number in range(500)))), "a")
    tracemalloc.start()
    try:
        orders.update(many, False)
        full = tracemalloc.get_traced_memory()[0]
        assert len(authorizations) == 500
        assert authorizations.holds(holder("0.example.com"), "a", 0)
        clock.now += LIFETIME
        assert authorizations.find(holder("0.example.com")) is None
        assert not authorizations.holds(holder("0.example.com"), "a", 0)
        orders.update(named(order("new.example.com"), "b"), False)
        assert len(authorizations) == 0
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < full / 2
    finally:
        tracemalloc.stop()


@pytest.mark.requirement("SEC56")
def test_after_a_gap_nothing_is_certain_until_the_next_list(
    orders: Index[ACMEOrder], authorizations: Authorizations
) -> None:
    kept, lost = named(proven(order()), "kept"), named(proven(order("lost.example.com")), "lost")
    for each in (kept, lost):
        orders.update(each, False)
    assert authorizations.holds(holder(), "kept", 0)
    orders.mark_stale()
    assert not authorizations.holds(holder(), "kept", 0)
    orders.update(kept, False)
    assert authorizations.holds(holder(), "kept", 0)
    orders.mark_complete()
    assert authorizations.find(holder("lost.example.com")) is None
    assert len(authorizations) == 1


@pytest.mark.requirement("SEC72")
def test_so_many_are_kept_and_those_that_end_first_go_first(orders: Index[ACMEOrder], clock: Clock) -> None:
    authorizations = Authorizations(orders, clock=clock, capacity=3)  # type: ignore[arg-type]  # see above
    for number in range(5):
        lifetime = LIFETIME + timedelta(hours=number if number != 4 else -1)
        orders.update(named(proven(order(f"{number}.example.com", lifetime=lifetime)), f"order-{number}"), False)
    assert len(authorizations) == 3
    known = [authorizations.find(holder(f"{number}.example.com")) is not None for number in range(5)]
    assert known == [False, True, True, True, False]


@pytest.mark.requirement("SEC72")
def test_however_long_its_names_are_and_however_often_it_changes_an_order_takes_little_memory(
    orders: Index[ACMEOrder], authorizations: Authorizations
) -> None:
    def added(labels: int) -> int:
        name = ".".join("l" * 60 for _ in range(labels))
        before = tracemalloc.get_traced_memory()[0]
        for version in range(2, 60):
            names = [f"{number}.{labels}{version}.{name}"[:253] for number in range(100)]
            for later in range(3):
                changed = named(proven(order(*names)), f"{labels}-{version}", version=3 * version + later)
                orders.update(changed, False)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        short, long = added(1), added(4)
    finally:
        tracemalloc.stop()
    assert long < 1.2 * short
    assert long / 58 < 50_000
