from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.state.certificates import Certificates
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


def surveyed(certificates: Certificates, *orders: ACMEOrder) -> None:
    certificates.missed()
    for each in orders:
        certificates.seen(each, False)
    certificates.surveyed()


def test_a_certificate_is_found_by_its_serial_number_in_its_namespace() -> None:
    certificates = Certificates()
    certificates.seen(certified("a"), False)
    found = certificates.certificate("pki", "1234")
    assert found is not None
    assert found.order == ("pki", "a")
    assert (found.authority_key_id, found.issued_at) == (AUTHORITY, NOW)
    assert found.not_after == NOW + timedelta(days=30)
    assert certificates.certificate("other", "1234") is None
    assert len(certificates) == 1


def test_orders_without_a_certificate_are_not_kept() -> None:
    certificates = Certificates()
    certificates.seen(order(), False)
    assert len(certificates) == 0


def test_it_is_complete_between_a_survey_and_the_next_gap() -> None:
    certificates = Certificates()
    assert not certificates.complete
    surveyed(certificates)
    completed = certificates.complete
    certificates.missed()
    assert (completed, certificates.complete) == (True, False)


def test_what_a_survey_does_not_find_any_more_is_gone() -> None:
    certificates = Certificates()
    surveyed(certificates, certified("a", serial="a"), certified("b", serial="b"))
    certificates.missed()
    certificates.seen(certified("b", serial="b"), False)
    assert certificates.certificate("pki", "a") is not None, "nothing is forgotten before the survey has ended"
    certificates.surveyed()
    assert certificates.certificate("pki", "a") is None
    assert certificates.certificate("pki", "b") is not None


def test_an_older_version_does_not_undo_a_revocation() -> None:
    certificates = Certificates()
    certificates.seen(certified("a", version=9, reason="superseded"), False)
    certificates.seen(certified("a", version=2), False)
    assert [each.serial_number for each in certificates.revoked("pki", AUTHORITY)] == ["1234"]


def test_an_order_that_went_does_not_come_back_with_a_page_that_was_read_before() -> None:
    certificates = Certificates()
    certificates.missed()
    certificates.seen(certified("a", version=5), True)
    certificates.seen(certified("a", version=2), False)
    certificates.surveyed()
    assert len(certificates) == 0


def test_revocations_are_told_once_each() -> None:
    told: list[tuple[str, str]] = []
    certificates = Certificates(on_revocation=lambda *of: told.append(of))
    certificates.seen(certified("a", version=2), False)
    certificates.seen(certified("a", version=3, reason="superseded"), False)
    certificates.seen(certified("a", version=4, reason="superseded"), False)
    assert told == [("pki", AUTHORITY)]
    certificates.seen(certified("a", version=5, reason="superseded"), True)
    assert told == [("pki", AUTHORITY)] * 2
    assert not certificates.revoked("pki", AUTHORITY)


@pytest.mark.requirement("SEC25", "SEC26")
@pytest.mark.parametrize(("reason", "compromised"), [("keyCompromise", True), ("superseded", False), (None, False)])
def test_keys_are_compromised_only_by_that_reason(reason: str | None, compromised: bool) -> None:
    certificates = Certificates()
    certificates.seen(certified("a", reason=reason), False)
    assert certificates.is_compromised(KEY) is compromised


@pytest.mark.requirement("SEC25")
def test_a_compromised_key_stays_so_when_its_order_is_gone() -> None:
    certificates = Certificates()
    certificates.seen(certified("a", version=2, reason="keyCompromise"), False)
    certificates.seen(certified("a", version=3, reason="keyCompromise"), True)
    surveyed(certificates)
    assert certificates.is_compromised(KEY)


@given(st.permutations([2, 3, 4, 5]))
def test_whatever_the_order_of_arrival_the_newest_version_counts(versions: list[int]) -> None:
    certificates = Certificates()
    for version in versions:
        certificates.seen(certified("a", version=version, reason="superseded" if version == 5 else None), False)
    assert len(certificates.revoked("pki", AUTHORITY)) == 1
