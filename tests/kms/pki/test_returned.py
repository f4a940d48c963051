from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from hypothesis import assume, given
from hypothesis import strategies as st

from kms.pki.certificate import certifies
from kms.pki.csr import parse_request
from kms.pki.keys import fingerprint
from kms.pki.returned import Expected, Rejected, ReturnedCertificate, check_returned
from kms.pki.returned.path import find_path
from kms.pki.verbatim import verbatim_violations
from tests.support import csrs, requests
from tests.support.foreign_ca import ANCHOR, DAY, DURATION, ISSUING, ROOT, answer_to, authority, ec_key, pem
from tests.support.lying_ca import FOREIGN, LIES, TRUTHS, told
from tests.support.pki import NOW, csr, key
from tests.support.processor import least_time

# cryptography warns of the lie and goes on; outside of tests a warning is no error.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")

ROOT_CERTIFICATE = x509.load_der_x509_certificate(ANCHOR)
REQUEST = requests.built(requests.NAMES)


def expected(der: bytes = REQUEST) -> Expected:
    request = parse_request(der)
    return Expected(
        request=request,
        names=request.names,
        usages=frozenset({"digital signature", "server auth", "client auth"}),
        subject=requests.SUBJECT,
        policy=requests.POLICY,
        duration=DURATION,
        accepted=NOW - timedelta(hours=1),
    )


def checked(written: bytes, der: bytes = REQUEST, known: tuple[bytes, ...] = ()) -> ReturnedCertificate:
    certificates = [x509.load_der_x509_certificate(each) for each in known]
    return check_returned(written, expected(der), anchors=[ROOT_CERTIFICATE], known=certificates, now=NOW)


def rejection(written: bytes, der: bytes = REQUEST) -> Rejected:
    with pytest.raises(Rejected) as rejected:
        checked(written, der)
    assert str(rejected.value).isprintable()
    return rejected.value


@pytest.mark.requirement("SEC29", "X31", "X32", "X33", "X34", "X61")
@pytest.mark.parametrize("lie", sorted(LIES))
def test_each_lie_is_found(lie: str) -> None:
    change, rule = LIES[lie]
    assert rejection(told(REQUEST, [change])).rule == rule


@pytest.mark.requirement("SEC29", "X31", "X32", "X33", "X34")
@pytest.mark.parametrize("truth", sorted(TRUTHS))
def test_differences_that_do_no_harm_are_accepted(truth: str) -> None:
    assert checked(told(REQUEST, [TRUTHS[truth]])).issuers[-1] == ROOT_CERTIFICATE


@pytest.mark.requirement("X61", "SEC29")
@given(st.lists(st.sampled_from(sorted(TRUTHS)), max_size=2), st.sampled_from(sorted(LIES)))
def test_a_lie_is_found_among_differences_that_do_no_harm(truths: list[str], lie: str) -> None:
    change, rule = LIES[lie]
    # The last change may undo another one, never the lie.
    written = told(REQUEST, [*(TRUTHS[each] for each in truths), change])
    assume(rule != "OutlivesAuthority" or "less time" not in truths)
    # That lie replaces SHA-256, which such a certificate does not have.
    assume(lie != "another algorithm than was signed" or "SHA-512" not in truths)
    rejection(written)


@pytest.mark.requirement("X27", "X32")
@given(requests.harmless())
def test_a_ca_that_copies_all_of_a_harmless_request_issues_what_is_accepted(der: bytes) -> None:
    assert not verbatim_violations(
        parse_request(der), usages=expected().usages, subject=requests.SUBJECT, policy=requests.POLICY
    )
    assert checked(answer_to(der).written, der).public_key_digest == fingerprint(key().public_key())


@pytest.mark.requirement("X35")
def test_what_is_stored_is_that_of_the_certificate() -> None:
    answer = answer_to(REQUEST)
    found = checked(answer.written)
    leaf, issuing = map(x509.load_der_x509_certificate, answer.chain)
    assert x509.load_pem_x509_certificates(found.chain.encode()) == [leaf, issuing]
    assert found.issuers == (issuing, ROOT_CERTIFICATE)
    assert found.serial_number == "4d" * 16
    identifier = issuing.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert found.authority_key_id == identifier.hex()
    assert found.public_key_digest == fingerprint(key().public_key())
    assert (found.not_before, found.not_after) == (NOW - timedelta(minutes=1), NOW + DURATION)
    assert not found.shortened


@pytest.mark.requirement("X35")
def test_a_certificate_may_have_no_authority_key_identifier() -> None:
    assert checked(told(REQUEST, [TRUTHS["no authorityKeyIdentifier"]])).authority_key_id == ""


@pytest.mark.requirement("X33")
def test_less_time_than_asked_for_is_told() -> None:
    assert checked(told(REQUEST, [TRUTHS["less time"]])).shortened
    assert not checked(told(REQUEST, [TRUTHS["more time, within the policy"]])).shortened


@pytest.mark.requirement("X33", "X36")
def test_an_end_beyond_the_issuers_tells_when_that_is() -> None:
    assert rejection(told(REQUEST, [LIES["an end beyond the issuer's"][0]])).ends == NOW + 20 * DAY
    assert rejection(told(REQUEST, [LIES["another key"][0]])).ends is None


@pytest.mark.requirement("X36")
def test_an_end_beyond_the_issuers_counts_last() -> None:
    late = LIES["an end beyond the issuer's"][0]
    for lie, (change, rule) in LIES.items():
        if rule in {"KeyMismatch", "NameMismatch", "SubjectMismatch", "UsageMismatch", "InvalidDates"}:
            assert rejection(told(REQUEST, [late, change])).rule == rule, lie


@pytest.mark.requirement("X34")
def test_missing_middle_parts_are_those_that_are_known() -> None:
    answer = answer_to(REQUEST)
    found = checked(pem(answer.chain[0]), known=(FOREIGN, answer.chain[1]))
    assert found.chain.count("BEGIN") == 2
    assert found.issuers[-1] == ROOT_CERTIFICATE


@pytest.mark.requirement("X34")
def test_of_two_certificates_of_the_issuer_the_valid_one_is_taken() -> None:
    ended = replace(authority(ISSUING, ROOT), not_after=NOW).signed(ec_key(ROOT))
    answer = answer_to(REQUEST)
    found = checked(pem(answer.chain[0]) + pem(ended) + pem(answer.chain[1]))
    assert found.issuers[0].not_valid_after_utc > NOW


@pytest.mark.requirement("X34")
def test_the_anchor_is_left_out_unless_it_has_issued_the_certificate() -> None:
    by_root = replace(answer_to(REQUEST).leaf, issuer=csrs.subject((requests.COMMON_NAME, csrs.UTF8, ROOT.encode())))
    by_root = by_root.without_extension("2.5.29.35")
    written = pem(by_root.signed(ec_key(ROOT)))
    assert checked(told(REQUEST, [TRUTHS["the root too"]])).chain.count("BEGIN") == 2
    assert checked(written).chain.count("BEGIN") == 2  # certbot rejects a chain of one certificate


@pytest.mark.requirement("X34")
@pytest.mark.parametrize("lie", ["an issuer that has ended", "an issuer that is no CA"])
def test_an_anchor_must_be_a_ca_and_valid(lie: str) -> None:
    change, rule = LIES[lie]
    answer = change(answer_to(REQUEST))
    anchor = x509.load_der_x509_certificate(answer.chain[1])
    with pytest.raises(Rejected) as rejected:
        check_returned(pem(answer.chain[0]), expected(), anchors=[anchor], now=NOW)
    assert rejected.value.rule == rule


@pytest.mark.requirement("X34")
def test_an_issuing_ca_may_be_the_anchor() -> None:
    answer = answer_to(REQUEST)
    anchor = x509.load_der_x509_certificate(answer.chain[1])
    assert check_returned(answer.written, expected(), anchors=[anchor], now=NOW).issuers == (anchor,)


@pytest.mark.requirement("X32")
def test_an_rsa_key_and_addresses_are_compared_too() -> None:
    der = csr("10.1.2.3", "2001:db8::1", "*.example.com", signed_with=key("RSA", 2048))
    assert checked(answer_to(der).written, der).not_after == NOW + DURATION


def test_certificates_that_could_certify_each_other_cost_little() -> None:
    loops = [authority("A", "A", which=f"A{number}").signed(ec_key(f"A{number}")) for number in range(8)]
    leaf = replace(answer_to(REQUEST).leaf, issuer=csrs.subject((requests.COMMON_NAME, csrs.UTF8, b"A")))
    written = pem(leaf.signed(ec_key("A7"))) + b"".join(map(pem, loops))
    assert least_time(lambda: rejection(written), times=3) < 0.1


def test_certificates_that_certify_each_other_in_many_ways_cost_little() -> None:
    """Three certificates for each of three keys: there are many ways, and none leads to an anchor."""
    keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(4)]
    between = [authority_of(keys[level], keys[level + 1]) for level in range(3) for _ in range(3)]
    leaf = authority_of(ec.generate_private_key(ec.SECP384R1()), keys[0])
    anchors = [authority_of(each, each) for each in (ec.generate_private_key(ec.SECP384R1()) for _ in range(8))]

    def search() -> None:
        with pytest.raises(Rejected):
            find_path(leaf, between, known=(), anchors=anchors, names=(), now=NOW)

    one = least_time(lambda: certifies(anchors[0], leaf))
    assert least_time(search, times=2) < 2 * len((leaf, *between)) * len((*between, *anchors)) * one


def authority_of(own: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA")])
    builder = x509.CertificateBuilder(name, name, own.public_key(), x509.random_serial_number(), NOW - DAY, NOW + DAY)
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(by, SHA384())
