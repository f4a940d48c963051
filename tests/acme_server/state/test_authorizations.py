"""The memory of proofs: what an account has proven, whatever the order in which versions of orders arrive."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.state import authorizations
from acme_server.state.authorizations import Holder, Proofs
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
def proofs(clock: Clock) -> Proofs:
    return Proofs(clock=clock)  # type: ignore[arg-type]  # the time of this clock is a datetime


def holder(value: str = WWW, account: str = "account") -> Holder:
    return Holder("pki", account, Identifier(type="dns", value=value))


def named(order: ACMEOrder, name: str, *, version: int = 2) -> ACMEOrder:
    return replace(order, metadata=replace(order.metadata, name=name, resource_version=str(version)))


def deactivated(order: ACMEOrder, position: int = 0) -> ACMEOrder:
    return transitions.deactivated(order, position, now=NOW)


@pytest.mark.requirement("M122")
def test_a_proof_is_found_by_account_and_identifier(proofs: Proofs) -> None:
    proofs.seen(named(proven(order(WWW, "*.apps.example.com")), "a"), False)
    found = proofs.find(holder())
    assert found is not None
    assert (found.order, found.position, found.type, found.validated) == ("a", 0, "http-01", NOW)
    assert found.expires == NOW + LIFETIME
    assert proofs.find(holder(account="other")) is None
    assert proofs.find(Holder("other", "account", Identifier(type="dns", value=WWW))) is None


@pytest.mark.requirement("M57")
def test_a_wildcard_and_its_base_name_are_not_the_same(proofs: Proofs) -> None:
    proofs.seen(named(proven(order("*.example.com")), "a"), False)
    assert proofs.find(holder("*.example.com")) is not None
    assert proofs.find(holder("example.com")) is None


def test_what_is_not_proven_is_no_proof(proofs: Proofs) -> None:
    proofs.seen(order(), False)
    proofs.seen(named(proven(order(WWW, "b.example.com"), 1), "a"), False)
    assert proofs.find(holder()) is None
    assert proofs.find(holder("b.example.com")) is not None


@pytest.mark.requirement("SEC50")
def test_what_was_taken_without_proof_or_from_another_order_is_no_proof(proofs: Proofs) -> None:
    references: tuple[dict[str, Any], ...] = ({}, {"order": "earlier", "position": 0})
    for reference in references:
        given = Authorized(authorization=0, type="http-01", validated=NOW, expires=NOW + LIFETIME, **reference)
        unproven = order()
        relying = replace(unproven, spec=replace(unproven.spec, authorized=(given,)), status=type(unproven.status)())
        relying = opened(relying)
        assert relying.status.state == "ready"
        proofs.seen(relying, False)
        assert len(proofs) == 0
        assert authorizations.own_authorization(relying, 0) is None


@pytest.mark.requirement("M135")
def test_a_deactivated_authorization_is_none_also_where_an_older_version_comes_late(proofs: Proofs) -> None:
    valid = named(proven(order(WWW, "b.example.com")), "a", version=2)
    proofs.seen(valid, False)
    proofs.seen(named(deactivated(valid), "a", version=3), False)
    proofs.seen(valid, False)
    assert proofs.find(holder()) is None
    assert not proofs.holds(holder(), "a", 0)
    assert proofs.find(holder("b.example.com")) is not None


def test_a_deactivation_that_is_heard_of_first_is_not_undone_by_the_survey(proofs: Proofs) -> None:
    valid = named(proven(order()), "a", version=2)
    proofs.seen(named(deactivated(valid), "a", version=3), False)
    proofs.missed()
    proofs.seen(valid, False)
    proofs.surveyed()
    assert proofs.find(holder()) is None


def test_an_order_that_is_gone_proves_nothing(proofs: Proofs) -> None:
    valid = named(proven(order()), "a")
    proofs.seen(valid, False)
    proofs.seen(named(valid, "a", version=3), True)
    proofs.seen(valid, False)
    assert len(proofs) == 0


def test_the_newest_proof_is_kept(proofs: Proofs) -> None:
    later = NOW + timedelta(minutes=1)
    proofs.seen(named(proven(order(), at=later), "newer"), False)
    proofs.seen(named(proven(order()), "older", version=9), False)
    found = proofs.find(holder())
    assert found is not None
    assert found.order == "newer"
    assert not proofs.holds(holder(), "older", 0)
    proofs.seen(named(deactivated(proven(order(), at=later)), "newer", version=10), False)
    assert proofs.find(holder()) is None


@pytest.mark.requirement("SEC67")
def test_proofs_end_and_take_no_memory_then(proofs: Proofs, clock: Clock) -> None:
    proofs.seen(named(proven(order(*(f"{number}.example.com" for number in range(50)))), "a"), False)
    assert len(proofs) == 50
    assert proofs.holds(holder("0.example.com"), "a", 0)
    clock.now += LIFETIME
    assert proofs.find(holder("0.example.com")) is None
    assert not proofs.holds(holder("0.example.com"), "a", 0)
    proofs.seen(named(order("new.example.com"), "b"), False)
    assert len(proofs) == 0
    assert not proofs._holders
    assert not proofs._versions
    assert proofs._expiring == []


@pytest.mark.requirement("SEC56")
def test_after_a_gap_nothing_is_certain_until_the_survey(proofs: Proofs) -> None:
    kept, lost = named(proven(order()), "kept"), named(proven(order("lost.example.com")), "lost")
    for each in (kept, lost):
        proofs.seen(each, False)
    assert proofs.holds(holder(), "kept", 0)
    proofs.missed()
    assert not proofs.holds(holder(), "kept", 0)
    proofs.seen(kept, False)
    assert proofs.holds(holder(), "kept", 0)
    proofs.surveyed()
    assert proofs.find(holder("lost.example.com")) is None
    assert len(proofs) == 1


def test_what_is_remembered_of_orders_that_ended_is_bounded(proofs: Proofs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorizations, "_REMEMBERED", 2)
    for number in range(5):
        proofs.seen(named(order(), str(number)), True)
    assert list(proofs._ended) == [("pki", "3"), ("pki", "4")]
