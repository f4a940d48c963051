"""The memory of proofs: what an account has proven, whatever the order in which versions of orders arrive."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.state import authorizations as state_authorizations
from acme_server.state.authorizations import Authorizations, Holder
from kms.resources.orders import ACMEOrder, Authorized, Identifier, opened
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
def authorizations(clock: Clock) -> Authorizations:
    return Authorizations(clock=clock)  # type: ignore[arg-type]  # the time of this clock is a datetime


def holder(value: str = WWW, account: str = "account") -> Holder:
    return Holder("pki", account, Identifier(type="dns", value=value))


def named(order: ACMEOrder, name: str, *, version: int = 2) -> ACMEOrder:
    return replace(order, metadata=replace(order.metadata, name=name, resource_version=str(version)))


def deactivated(order: ACMEOrder, position: int = 0) -> ACMEOrder:
    return transitions.deactivated(order, position, now=NOW)


@pytest.mark.requirement("M122")
def test_a_proof_is_found_by_account_and_identifier(authorizations: Authorizations) -> None:
    authorizations.seen(named(proven(order(WWW, "*.apps.example.com")), "a"), False)
    found = authorizations.find(holder())
    assert found is not None
    assert (found.order, found.position, found.type, found.validated) == ("a", 0, "http-01", NOW)
    assert found.expires == NOW + LIFETIME
    assert authorizations.find(holder(account="other")) is None
    assert authorizations.find(Holder("other", "account", Identifier(type="dns", value=WWW))) is None


@pytest.mark.requirement("M57")
def test_a_wildcard_and_its_base_name_are_not_the_same(authorizations: Authorizations) -> None:
    authorizations.seen(named(proven(order("*.example.com")), "a"), False)
    assert authorizations.find(holder("*.example.com")) is not None
    assert authorizations.find(holder("example.com")) is None


def test_what_is_not_proven_is_no_proof(authorizations: Authorizations) -> None:
    authorizations.seen(order(), False)
    authorizations.seen(named(proven(order(WWW, "b.example.com"), 1), "a"), False)
    assert authorizations.find(holder()) is None
    assert authorizations.find(holder("b.example.com")) is not None


@pytest.mark.requirement("SEC50")
def test_what_was_taken_without_proof_or_from_another_order_is_no_proof(authorizations: Authorizations) -> None:
    references: tuple[dict[str, Any], ...] = ({}, {"order": "earlier", "position": 0})
    for reference in references:
        given = Authorized(authorization=0, type="http-01", validated=NOW, expires=NOW + LIFETIME, **reference)
        unproven = order()
        relying = replace(unproven, spec=replace(unproven.spec, authorized=(given,)), status=type(unproven.status)())
        relying = opened(relying)
        assert relying.status.state == "ready"
        authorizations.seen(relying, False)
        assert len(authorizations) == 0
        assert state_authorizations.own_authorization(relying, 0) is None


@pytest.mark.requirement("M135")
def test_a_deactivated_authorization_is_none_also_where_an_older_version_comes_late(
    authorizations: Authorizations,
) -> None:
    valid = named(proven(order(WWW, "b.example.com")), "a", version=2)
    authorizations.seen(valid, False)
    authorizations.seen(named(deactivated(valid), "a", version=3), False)
    authorizations.seen(valid, False)
    assert authorizations.find(holder()) is None
    assert not authorizations.holds(holder(), "a", 0)
    assert authorizations.find(holder("b.example.com")) is not None


def test_a_deactivation_that_is_heard_of_first_is_not_undone_by_the_survey(authorizations: Authorizations) -> None:
    valid = named(proven(order()), "a", version=2)
    authorizations.seen(named(deactivated(valid), "a", version=3), False)
    authorizations.missed()
    authorizations.seen(valid, False)
    authorizations.surveyed()
    assert authorizations.find(holder()) is None


def test_an_order_that_is_gone_proves_nothing(authorizations: Authorizations) -> None:
    valid = named(proven(order()), "a")
    authorizations.seen(valid, False)
    authorizations.seen(named(valid, "a", version=3), True)
    authorizations.seen(valid, False)
    assert len(authorizations) == 0


def test_the_newest_proof_is_kept(authorizations: Authorizations) -> None:
    later = NOW + timedelta(minutes=1)
    authorizations.seen(named(proven(order(), at=later), "newer"), False)
    authorizations.seen(named(proven(order()), "older", version=9), False)
    found = authorizations.find(holder())
    assert found is not None
    assert found.order == "newer"
    assert not authorizations.holds(holder(), "older", 0)
    authorizations.seen(named(deactivated(proven(order(), at=later)), "newer", version=10), False)
    assert authorizations.find(holder()) is None


@pytest.mark.requirement("SEC67")
def test_proofs_end_and_take_no_memory_then(authorizations: Authorizations, clock: Clock) -> None:
    authorizations.seen(named(proven(order(*(f"{number}.example.com" for number in range(50)))), "a"), False)
    assert len(authorizations) == 50
    assert authorizations.holds(holder("0.example.com"), "a", 0)
    clock.now += LIFETIME
    assert authorizations.find(holder("0.example.com")) is None
    assert not authorizations.holds(holder("0.example.com"), "a", 0)
    authorizations.seen(named(order("new.example.com"), "b"), False)
    assert len(authorizations) == 0
    assert not authorizations._holders
    assert not authorizations._versions
    assert authorizations._expiring == []


@pytest.mark.requirement("SEC56")
def test_after_a_gap_nothing_is_certain_until_the_survey(authorizations: Authorizations) -> None:
    kept, lost = named(proven(order()), "kept"), named(proven(order("lost.example.com")), "lost")
    for each in (kept, lost):
        authorizations.seen(each, False)
    assert authorizations.holds(holder(), "kept", 0)
    authorizations.missed()
    assert not authorizations.holds(holder(), "kept", 0)
    authorizations.seen(kept, False)
    assert authorizations.holds(holder(), "kept", 0)
    authorizations.surveyed()
    assert authorizations.find(holder("lost.example.com")) is None
    assert len(authorizations) == 1


def test_what_is_remembered_of_orders_that_ended_is_bounded(
    authorizations: Authorizations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_authorizations, "_REMEMBERED", 2)
    for number in range(5):
        authorizations.seen(named(order(), str(number)), True)
    assert list(authorizations._ended) == [("pki", "3"), ("pki", "4")]
