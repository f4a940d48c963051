from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_server.certificates.renewal_window import (
    retry_after_of,
    suggest_window,
)
from acme_server.model import CertificateId, parse_certificate_id
from acme_server.orders.lifetimes import BACKDATE
from acme_server.orders.replacement import successor_name
from acme_server.problems import ProblemType, Refused
from acme_server.state.certificates import CertificateRecord
from kms.resources.orders import Revocation

ISSUED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def certificate(
    serial: str = "87543210",
    *,
    lifetime: timedelta = 30 * DAY,
    not_before: datetime = ISSUED - timedelta(minutes=1),
    revoked: datetime | None = None,
    order: str = "order",
) -> CertificateRecord:
    return CertificateRecord(
        order=("pki", order),
        profile="web",
        account="account",
        serial_number=serial,
        authority_key_id="ab" * 20,
        issuer="ab" * 20,
        names=b"",
        not_before=not_before,
        not_after=not_before + lifetime,
        issued_at=ISSUED,
        revocation=None if revoked is None else Revocation(time=revoked, reason="superseded"),
    )


@pytest.mark.requirement("ARI-M2")
def test_identifiers_are_those_of_rfc_9773() -> None:
    # The certificate of RFC 9773, 4.1; its serial number begins with a zero octet.
    text = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
    parsed = parse_certificate_id(text)
    assert parsed == CertificateId("69885b6b87464041e1b37b847ba0ae2cde01c8d4", "87654321")
    assert str(parsed) == text


@pytest.mark.requirement("ARI-M2", "SEC40")
@given(st.binary(min_size=1, max_size=32), st.integers(min_value=1, max_value=2**160))
def test_every_identifier_has_one_spelling(key: bytes, serial: int) -> None:
    written = CertificateId(key.hex(), f"{serial:x}")
    assert parse_certificate_id(str(written)) == written


@pytest.mark.requirement("ARI-M5")
@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "aYhba4dGQEHhs3uEe6CuLN4ByNQ",
        "aYhba4dGQEHhs3uEe6CuLN4ByNQ.",
        ".AIdlQyE",
        "aYhba4dGQEHhs3uEe6CuLN4ByNQ=.AIdlQyE",
        "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE=",
        "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE.AA",
        "aYhba4dGQEHhs3uEe6CuLN4ByNR.AIdlQyE",
        "aYhba4dGQEHhs3uEe6CuLN4ByNQ.h2VDIQ",
        "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AABlQyE",
        "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AA",
        "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AId lQyE",
        "äYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
    ],
)
def test_other_spellings_are_malformed(text: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_certificate_id(text)
    assert caught.value.type is ProblemType.MALFORMED


@pytest.mark.requirement("SEC40")
@given(st.text(max_size=80))
def test_no_text_raises_anything_but_a_refusal(text: str) -> None:
    try:
        parsed = parse_certificate_id(text)
    except Refused:
        return
    assert str(parsed) == text


@pytest.mark.requirement("ARI-M3")
@given(st.integers(min_value=1, max_value=10 * 365 * 86400), st.integers(min_value=1, max_value=2**127))
def test_a_window_lies_in_the_last_third_or_just_before_it(seconds: int, serial: int) -> None:
    lifetime = timedelta(seconds=seconds)
    one = certificate(f"{serial:x}", lifetime=lifetime, not_before=ISSUED)
    window = suggest_window(one, issued_before=(), now=ISSUED)
    assert window.start + timedelta(seconds=2) <= window.end
    assert window.start >= ISSUED
    assert window.start >= ISSUED + lifetime * 0.6 - timedelta(seconds=1)
    assert window.end <= ISSUED + lifetime * 0.75 + timedelta(seconds=2)


@pytest.mark.requirement("ARI-M7")
def test_windows_of_a_fleet_are_spread_and_stay_where_they_are() -> None:
    windows = [suggest_window(certificate(f"{serial:x}"), issued_before=(), now=ISSUED) for serial in range(1, 201)]
    starts = sorted(window.start for window in windows)
    assert starts[-1] - starts[0] > 22 * timedelta(hours=1)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert max(gaps) < timedelta(hours=2)
    assert windows == [
        suggest_window(certificate(f"{serial:x}"), issued_before=(), now=ISSUED) for serial in range(1, 201)
    ]


def test_a_certificate_that_becomes_valid_later_is_renewed_later() -> None:
    later = certificate(not_before=ISSUED + 10 * DAY)
    assert suggest_window(later, issued_before=(), now=ISSUED).start >= ISSUED + 28 * DAY


@pytest.mark.requirement("ARI-M6")
def test_a_revoked_certificate_is_to_be_renewed_at_once() -> None:
    window = suggest_window(certificate(revoked=ISSUED + DAY), issued_before=(), now=ISSUED)
    assert window.start < window.end == ISSUED + DAY


@pytest.mark.requirement("ARI-M6")
def test_early_renewal_begins_when_the_administrator_says() -> None:
    asked = ISSUED + 5 * DAY
    window = suggest_window(certificate(), issued_before=[asked, asked + DAY], now=ISSUED)
    assert window.start == asked
    assert timedelta(hours=47) < window.end - window.start < timedelta(hours=49)


@pytest.mark.requirement("ARI-M6", "C13")
@given(st.integers(0, 20 * 86400), st.integers(0, 3600), st.integers(0, 3600))
def test_a_window_of_early_renewal_is_over_for_what_is_issued_in_it(age: int, passed: int, since: int) -> None:
    asked = ISSUED + timedelta(seconds=age + 1)
    now = asked + timedelta(seconds=passed)
    start = suggest_window(certificate(), issued_before=[asked], now=now).start
    renewed = now + timedelta(seconds=since)
    assert certificate().not_before < start <= renewed - BACKDATE, (
        "after its certificate began, before the next one did"
    )


@pytest.mark.requirement("ARI-M6", "C13")
@given(st.integers(0, 30 * 86400))
def test_the_window_of_a_revoked_certificate_begins_after_the_certificate_and_lasts(age: int) -> None:
    revoked = ISSUED + timedelta(seconds=age)
    window = suggest_window(certificate(revoked=revoked), issued_before=(), now=revoked)
    assert certificate().not_before < window.start
    assert window.start + timedelta(seconds=2) <= window.end == revoked


def test_early_renewal_concerns_only_what_was_issued_before() -> None:
    usual = suggest_window(certificate(), issued_before=(), now=ISSUED)
    assert suggest_window(certificate(), issued_before=[ISSUED, ISSUED - DAY], now=ISSUED) == usual


def test_early_renewal_does_not_postpone_anything() -> None:
    usual = suggest_window(certificate(), issued_before=(), now=ISSUED)
    assert suggest_window(certificate(), issued_before=[ISSUED + 29 * DAY], now=ISSUED) == usual


@pytest.mark.requirement("ARI-M4")
@pytest.mark.parametrize(
    ("lifetime", "seconds"), [(timedelta(minutes=5), 60), (timedelta(days=1), 1440), (30 * DAY, 21600)]
)
def test_short_lifetimes_are_asked_for_more_often(lifetime: timedelta, seconds: int) -> None:
    assert retry_after_of(certificate(lifetime=lifetime)).total_seconds() == seconds


@pytest.mark.requirement("ARI-M8")
def test_successors_have_names_that_follow_from_what_they_replace() -> None:
    names = {
        successor_name(certificate(), 0),
        successor_name(certificate(), 1),
        successor_name(certificate("2"), 0),
        successor_name(certificate(order="other"), 0),
    }
    assert len(names) == 4
    assert all(len(name) == 32 and name == name.lower() for name in names)
    assert successor_name(certificate(), 0) == successor_name(certificate(revoked=ISSUED), 0)
