from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.state.certificates import Inventory
from kms.resources.orders import ACMEOrder, Revocation
from tests.support.acmeorders import DIGEST, NOW, issued, order, proven

AUTHORITY = "ab" * 20
KEY = "cd" * 32


def certified(name: str, *, version: int = 2, serial: str = "1234", reason: str | None = None) -> ACMEOrder:
    valid = transitions.issued(proven(order()), DIGEST, issued(serial), now=NOW)
    revocation = None if reason is None else Revocation(time=NOW, reason=reason)
    return replace(
        valid,
        metadata=replace(valid.metadata, name=name, resource_version=str(version)),
        status=replace(valid.status, revocation=revocation),
    )


def surveyed(inventory: Inventory, *orders: ACMEOrder) -> None:
    inventory.missed()
    for each in orders:
        inventory.seen(each, False)
    inventory.surveyed()


def test_a_certificate_is_found_by_its_serial_number_in_its_namespace() -> None:
    inventory = Inventory()
    inventory.seen(certified("a"), False)
    found = inventory.certificate("pki", "1234")
    assert found is not None
    assert found.order == ("pki", "a")
    assert (found.authority_key_id, found.issued_at) == (AUTHORITY, NOW)
    assert found.not_after == NOW + timedelta(days=30)
    assert inventory.certificate("other", "1234") is None
    assert len(inventory) == 1


def test_orders_without_a_certificate_are_not_kept() -> None:
    inventory = Inventory()
    inventory.seen(order(), False)
    assert len(inventory) == 0


def test_it_is_complete_between_a_survey_and_the_next_gap() -> None:
    inventory = Inventory()
    assert not inventory.complete
    surveyed(inventory)
    completed = inventory.complete
    inventory.missed()
    assert (completed, inventory.complete) == (True, False)


def test_what_a_survey_does_not_find_any_more_is_gone() -> None:
    inventory = Inventory()
    surveyed(inventory, certified("a", serial="a"), certified("b", serial="b"))
    inventory.missed()
    inventory.seen(certified("b", serial="b"), False)
    assert inventory.certificate("pki", "a") is not None, "nothing is forgotten before the survey has ended"
    inventory.surveyed()
    assert inventory.certificate("pki", "a") is None
    assert inventory.certificate("pki", "b") is not None


def test_an_older_version_does_not_undo_a_revocation() -> None:
    inventory = Inventory()
    inventory.seen(certified("a", version=9, reason="superseded"), False)
    inventory.seen(certified("a", version=2), False)
    assert [each.serial_number for each in inventory.revoked("pki", AUTHORITY)] == ["1234"]


def test_an_order_that_went_does_not_come_back_with_a_page_that_was_read_before() -> None:
    inventory = Inventory()
    inventory.missed()
    inventory.seen(certified("a", version=5), True)
    inventory.seen(certified("a", version=2), False)
    inventory.surveyed()
    assert len(inventory) == 0


def test_revocations_are_told_once_each() -> None:
    told: list[tuple[str, str]] = []
    inventory = Inventory(on_revocation=lambda *of: told.append(of))
    inventory.seen(certified("a", version=2), False)
    inventory.seen(certified("a", version=3, reason="superseded"), False)
    inventory.seen(certified("a", version=4, reason="superseded"), False)
    assert told == [("pki", AUTHORITY)]
    inventory.seen(certified("a", version=5, reason="superseded"), True)
    assert told == [("pki", AUTHORITY)] * 2
    assert not inventory.revoked("pki", AUTHORITY)


@pytest.mark.requirement("SEC25", "SEC26")
@pytest.mark.parametrize(("reason", "compromised"), [("keyCompromise", True), ("superseded", False), (None, False)])
def test_keys_are_compromised_only_by_that_reason(reason: str | None, compromised: bool) -> None:
    inventory = Inventory()
    inventory.seen(certified("a", reason=reason), False)
    assert inventory.is_compromised(KEY) is compromised


@pytest.mark.requirement("SEC25")
def test_a_compromised_key_stays_so_when_its_order_is_gone() -> None:
    inventory = Inventory()
    inventory.seen(certified("a", version=2, reason="keyCompromise"), False)
    inventory.seen(certified("a", version=3, reason="keyCompromise"), True)
    surveyed(inventory)
    assert inventory.is_compromised(KEY)


@given(st.permutations([2, 3, 4, 5]))
def test_whatever_the_order_of_arrival_the_newest_version_counts(versions: list[int]) -> None:
    inventory = Inventory()
    for version in versions:
        inventory.seen(certified("a", version=version, reason="superseded" if version == 5 else None), False)
    assert len(inventory.revoked("pki", AUTHORITY)) == 1
