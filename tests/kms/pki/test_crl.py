from __future__ import annotations

import asyncio
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.certificate import Signer, authority_key_identifier, sign_leaf
from kms.pki.crl import REASON_CODES, ListTemplate, encode_entry, revocation_list, sort_entries
from tests.support import pki

NOW = pki.NOW
KEYS = [("ECDSA", 256), ("ECDSA", 384), ("ECDSA", 521), ("RSA", 2048), ("Ed25519", None)]

serials = st.integers(min_value=1, max_value=2**159 - 1)
times = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31)).map(  # noqa: DTZ001 - made aware
    lambda each: each.replace(microsecond=0, tzinfo=UTC)
)
reasons = st.sampled_from(sorted(REASON_CODES))


def signer_with(algorithm: str, size: int | None) -> Signer:
    return pki.root(with_key=pki.key(algorithm, size, which="lists"))


def build_crl(*entries: bytes, signer: Signer | None = None, number: int = 7) -> x509.CertificateRevocationList:
    template = ListTemplate(entries=entries, number=number, this_update=NOW, next_update=NOW + pki.DAY)
    return x509.load_der_x509_crl(revocation_list(template, signer or pki.root()))


@pytest.mark.parametrize(("algorithm", "size"), KEYS)
def test_a_list_says_who_signed_it_when_and_which_it_is(algorithm: str, size: int | None) -> None:
    signer = signer_with(algorithm, size)
    revoked = build_crl(encode_entry(5, NOW, "superseded"), signer=signer)
    assert pki.vouched_for(revoked, signer.certificate)
    assert revoked.issuer == signer.certificate.subject
    assert (revoked.last_update_utc, revoked.next_update_utc) == (NOW, NOW + pki.DAY)
    assert revoked.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
    identifier = revoked.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert identifier == authority_key_identifier(signer.certificate)
    assert len(revoked.extensions) == 2
    assert not any(each.critical for each in revoked.extensions)


@pytest.mark.parametrize(("algorithm", "size"), KEYS)
def test_the_same_goes_in_and_the_same_bytes_come_out(algorithm: str, size: int | None) -> None:
    signer = signer_with(algorithm, size)
    template = ListTemplate([encode_entry(5, NOW, "superseded")], 1, NOW, NOW + pki.DAY)
    assert revocation_list(template, signer) == revocation_list(template, signer)


@pytest.mark.parametrize(("algorithm", "size"), KEYS)
def test_a_list_without_entries_is_what_cryptography_makes_of_it(algorithm: str, size: int | None) -> None:
    revoked = build_crl(signer=signer_with(algorithm, size))
    assert len(revoked) == 0
    assert pki.vouched_for(revoked, signer_with(algorithm, size).certificate)


@given(st.lists(st.tuples(serials, times, reasons), max_size=40, unique_by=lambda each: each[0]))
def test_every_entry_comes_back_as_it_went_in(entries: list[tuple[int, datetime, str]]) -> None:
    signer = pki.root()
    revoked = build_crl(*(encode_entry(*each) for each in entries), signer=signer)
    assert pki.vouched_for(revoked, signer.certificate)
    assert len(revoked) == len(entries)
    for serial, time, reason in entries:
        found = revoked.get_revoked_certificate_by_serial_number(serial)
        assert found is not None
        assert found.revocation_date_utc == time
        said = [each.value.reason.value for each in found.extensions]
        assert said == ([] if reason == "unspecified" else [reason])


@pytest.mark.requirement("S141")
def test_a_reason_that_says_nothing_is_left_out() -> None:
    assert encode_entry(1, NOW, "unspecified").hex() == "3012020101170d" + b"261123120000Z".hex()


@given(st.lists(st.tuples(serials, times, reasons), max_size=40), st.randoms())
def test_whatever_order_entries_come_in_their_order_is_one(
    entries: list[tuple[int, datetime, str]], random: st.DataObject
) -> None:
    encoded = [encode_entry(*each) for each in entries]
    shuffled = list(encoded)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
    assert sort_entries(shuffled) == sort_entries(encoded)
    assert sorted(sort_entries(encoded)) == sorted(encoded)


def test_openssl_takes_the_list_and_finds_the_revoked_certificate(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    signer = pki.root(path_length=0)
    template = pki.leaf()
    leaf = sign_leaf(template, signer)
    entries = [encode_entry(template.serial, NOW, "keyCompromise"), encode_entry(5, NOW, "superseded")]
    der = revocation_list(ListTemplate(sort_entries(entries), 1, NOW, NOW + pki.DAY), signer)
    (tmp_path / "ca.pem").write_bytes(signer.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    (tmp_path / "list.pem").write_bytes(x509.load_der_x509_crl(der).public_bytes(Encoding.PEM))
    at = str(int(NOW.timestamp()) + 60)
    line = [openssl, "verify", "-attime", at, "-crl_check", "-CAfile", "ca.pem", "-CRLfile", "list.pem", "leaf.pem"]
    checked = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "certificate revoked" in checked.stdout + checked.stderr
    assert "CRL signature failure" not in checked.stdout + checked.stderr


@pytest.mark.slow
@pytest.mark.requirement("SEC41")
async def test_a_hundred_thousand_entries_leave_the_event_loop_to_others() -> None:
    signer = pki.root()
    moments = [NOW - timedelta(seconds=position % 100_000) for position in range(100_000)]

    def work() -> bytes:
        entries = [encode_entry(hash((each, 1)) % 2**126 + 2**126, each, "superseded") for each in moments]
        return revocation_list(ListTemplate(sort_entries(entries), 1, NOW, NOW + pki.DAY), signer)

    turns = 0
    working = asyncio.create_task(asyncio.to_thread(work))
    while not working.done():
        await asyncio.sleep(0)
        turns += 1
    revoked = x509.load_der_x509_crl(working.result())
    assert (len(revoked), pki.vouched_for(revoked, signer.certificate)) == (100_000, True)
    assert len(working.result()) < 5_000_000
    assert turns > 20
