from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from cryptography import x509
from msgspec.structs import replace

from acme_server.orders import transitions
from acme_server.problems import Unavailable
from acme_server.state.certificates import Certificates
from acme_server.state.index import Index
from acme_server.state.revocation_records import RevocationRecords
from kms.pki.certificate import issuer_id
from kms.resources.orders import ACMEOrder, Revocation
from kms.resources.revocations import RevocationRecord
from tests.support import requests
from tests.support.acmeorders import DIGEST, NOW, issued, order, proven
from tests.support.foreign_ca import answer_to
from tests.support.lying_ca import TRUTHS

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


def test_a_certificate_is_found_by_its_serial_number_in_its_namespace() -> None:
    certificates = Certificates(orders := Index[ACMEOrder]())
    orders.update(certified("a"), False)
    found = certificates.certificate("pki", AUTHORITY, "1234")
    assert found is not None
    assert found.order == ("pki", "a")
    assert (found.authority_key_id, found.issued_at) == (AUTHORITY, NOW)
    assert found.not_after == NOW + timedelta(days=30)
    assert certificates.certificate("other", AUTHORITY, "1234") is None
    assert len(certificates) == 1


@pytest.mark.requirement("X42")
def test_two_issuers_may_choose_one_serial_number() -> None:
    certificates = Certificates(orders := Index[ACMEOrder]())
    other = certified("b")
    other = replace(other, status=replace(other.status, authority_key_id="ef" * 20))
    orders.update(certified("a"), False)
    orders.update(other, False)
    found = [certificates.certificate("pki", issuer, "1234") for issuer in (AUTHORITY, "ef" * 20, "")]
    assert [each and each.order[1] for each in found] == ["a", "b", None]
    orders.update(other, True)
    assert certificates.certificate("pki", AUTHORITY, "1234") is not None
    assert certificates.certificate("pki", "ef" * 20, "1234") is None


@pytest.mark.requirement("X42")
def test_without_a_key_identifier_the_name_of_the_issuer_counts() -> None:
    certificates = Certificates(orders := Index[ACMEOrder]())
    answer = TRUTHS["no authorityKeyIdentifier"](answer_to(requests.built(requests.NAMES)))
    valid = certified("a")
    status = replace(valid.status, authority_key_id=None, certificate=answer.written.decode())
    orders.update(replace(valid, status=status), False)
    leaf = x509.load_der_x509_certificate(answer.chain[0])
    found = certificates.certificate("pki", issuer_id(leaf), "1234")
    assert found is not None
    assert (found.issuer, found.authority_key_id) == (hashlib.sha256(leaf.issuer.public_bytes()).hexdigest(), "")
    orders.update(replace(certified("b", version=3), status=replace(status, certificate="?")), False)
    assert certificates.certificate("pki", "", "1234") is not None


def test_orders_without_a_certificate_are_not_kept() -> None:
    certificates = Certificates(orders := Index[ACMEOrder]())
    orders.update(order(), False)
    assert len(certificates) == 0
    orders.update(certified("order", version=2), False)
    orders.update(replace(order(), metadata=certified("order", version=3).metadata), False)  # another one of that name
    assert len(certificates) == 0


def test_a_certificate_whose_order_is_gone_is_not_found() -> None:
    certificates = Certificates(orders := Index[ACMEOrder]())
    for name in "ab":
        orders.update(certified(name, serial=name), False)
    orders.mark_stale()
    orders.update(certified("b", serial="b"), False)
    assert certificates.certificate("pki", AUTHORITY, "a") is not None, "nothing is forgotten before the list has ended"
    orders.mark_complete()
    assert certificates.certificate("pki", AUTHORITY, "a") is None
    assert certificates.certificate("pki", AUTHORITY, "b") is not None


def test_it_is_complete_between_a_full_list_and_the_next_gap() -> None:
    certificates = Certificates(orders := Index[ACMEOrder]())
    assert not certificates.is_complete("pki")
    orders.mark_complete()
    completed = certificates.is_complete("pki")
    orders.mark_stale()
    assert (completed, certificates.is_complete("pki")) == (True, False)


def test_revocations_are_told_once_each() -> None:
    told: list[tuple[str, str]] = []
    certificates = Certificates(orders := Index[ACMEOrder](), on_revocation=lambda *of: told.append(of))
    orders.update(certified("a", version=2), False)
    orders.update(certified("a", version=3, reason="superseded"), False)
    orders.update(certified("a", version=4, reason="superseded"), False)
    assert told == [("pki", AUTHORITY)]
    orders.update(certified("a", version=5, reason="superseded"), True)
    assert told == [("pki", AUTHORITY)] * 2
    assert not certificates.find_revoked("pki", AUTHORITY)


@pytest.mark.requirement("SEC25", "SEC26")
@pytest.mark.parametrize(("reason", "compromised"), [("keyCompromise", True), ("superseded", False), (None, False)])
def test_keys_are_compromised_only_by_that_reason(reason: str | None, compromised: bool) -> None:
    certificates = Certificates(orders := Index[ACMEOrder]())
    orders.mark_complete()
    orders.update(certified("a", reason=reason), False)
    assert certificates.is_compromised(KEY) is compromised


@pytest.mark.requirement("SEC25")
def test_before_the_first_full_list_no_key_counts_as_good_and_a_gap_in_the_watch_changes_nothing() -> None:
    records: Index[RevocationRecord] = Index()
    certificates = Certificates(orders := Index[ACMEOrder](), records=RevocationRecords(records))
    for read in (orders.mark_stale, orders.mark_complete):
        read()
        with pytest.raises(Unavailable) as caught:
            certificates.is_compromised(KEY)
        assert caught.value.retry_after
    records.mark_complete()
    assert not certificates.is_compromised(KEY)
    orders.mark_stale()
    assert not certificates.is_compromised(KEY)
    orders.update(certified("a", reason="keyCompromise"), False)
    assert certificates.is_compromised(KEY)


@pytest.mark.requirement("SEC25")
def test_a_compromised_key_stays_so_when_its_order_is_gone() -> None:
    certificates = Certificates(orders := Index[ACMEOrder]())
    orders.update(certified("a", version=2, reason="keyCompromise"), False)
    orders.update(certified("a", version=3, reason="keyCompromise"), True)
    orders.mark_stale()
    orders.mark_complete()
    assert certificates.is_compromised(KEY)
