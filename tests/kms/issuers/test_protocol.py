from __future__ import annotations

import re

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from kms.issuers.protocol import issued_by, request_name
from kms.pki.returned import ReturnedCertificate
from tests.support.foreign_ca import ANCHOR
from tests.support.pki import NOW

identities = st.tuples(st.uuids().map(str), st.binary(min_size=32, max_size=32).map(bytes.hex), st.integers(1, 9))


@pytest.mark.requirement("X16")
@given(identities, identities)
def test_a_request_has_one_name_on_every_replica(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    names = [request_name(uid=uid, digest=digest, attempt=attempt) for uid, digest, attempt in (one, one, other)]
    assert names[0] == names[1]
    assert (names[0] == names[2]) == (one == other)
    assert re.fullmatch("kms-[a-z2-7]{40}", names[0])


@pytest.mark.requirement("X16")
def test_the_name_of_a_request_never_changes() -> None:
    # Requests of an earlier version are found by it.
    found = request_name(uid="5d9ae6b1-6c2e-4b3b-8f39-0a5a4f3f5a11", digest="d" * 64, attempt=1)
    assert found == "kms-wo5op7j46bp6brybyadrwqctne5p442w6ihlpi22"


@pytest.mark.requirement("X35")
def test_what_was_checked_is_what_an_order_stores() -> None:
    checked = ReturnedCertificate(
        chain="PEM",
        issuers=(x509.load_der_x509_certificate(ANCHOR),),
        serial_number="4d",
        authority_key_id="",
        public_key_digest="cd",
        not_before=NOW,
        not_after=NOW,
        shortened=True,
    )
    issued = issued_by(checked)
    assert (issued.chain, issued.serial_number, issued.authority_key_id) == ("PEM", "4d", "")
    assert (issued.public_key_digest, issued.not_before, issued.not_after) == ("cd", NOW, NOW)
