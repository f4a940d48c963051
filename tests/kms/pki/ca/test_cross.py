from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509

from kms.pki.ca import InvalidAuthority, check_cross
from kms.pki.certificate import Signer, certificate_pem, certifies, sign, sign_leaf
from kms.pki.keys import PrivateKey
from tests.support import pki

NOW = pki.NOW
ISSUING = "Test Issuing CA"


def issuing() -> Signer:
    return pki.below(pki.root())


def other_root(**changes: object) -> Signer:
    values = {"common_name": "Other Root", "with_key": pki.key(which="other root"), **changes}
    return pki.root(**values)  # type: ignore[arg-type]  # of mixed types


def crossed(by: Signer, *, key: PrivateKey | None = None, name: str = ISSUING, **changes: object) -> x509.Certificate:
    """What `by` certifies of the issuing CA's key and name, unless told otherwise."""
    return pki.below(by, common_name=name, with_key=key or pki.key(which=ISSUING), **changes).certificate  # type: ignore[arg-type]


def pem(*certificates: x509.Certificate) -> str:
    return "".join(map(certificate_pem, certificates))


@pytest.mark.requirement("S124")
def test_a_cross_certificate_of_the_same_key_and_subject_leads_to_the_other_root() -> None:
    signer, other = issuing(), other_root()
    cross = crossed(other)
    for given in (pem(cross), pem(cross, other.certificate)):
        chain = check_cross(given, signer, now=NOW)
        assert chain.pem == pem(cross), "roots are left out"
        assert chain.not_after == cross.not_valid_after_utc
    leaf = sign_leaf(pki.leaf(), signer)
    assert certifies(cross, leaf)
    assert cross.issuer == other.certificate.subject, "what preferredChain of cert-manager looks at (C17)"


def test_further_certificates_stay_in_the_chain_until_the_root() -> None:
    other = other_root()
    between = pki.below(other, common_name="Between")
    cross = crossed(between)
    chain = check_cross(pem(cross, between.certificate, other.certificate), issuing(), now=NOW)
    assert chain.pem == pem(cross, between.certificate)
    assert chain.not_after == min(cross.not_valid_after_utc, between.certificate.not_valid_after_utc)


def refusal(given: str, signer: Signer | None = None) -> str:
    with pytest.raises(InvalidAuthority) as caught:
        check_cross(given, signer or issuing(), now=NOW)
    assert caught.value.reason == "InvalidCrossCertificate"
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    assert "cannot be read" in refusal(text)


def test_a_chain_that_clients_would_not_take_is_refused() -> None:
    assert "no chain with more than 4" in refusal(pem(*[crossed(other_root())] * 5))


def test_a_certificate_for_another_key_is_refused() -> None:
    assert "not for the key of this CA" in refusal(pem(crossed(other_root(), key=pki.key(which="another"))))
    assert "not for the key of this CA" in refusal(pem(other_root().certificate, crossed(other_root())))


def test_a_certificate_for_another_name_is_refused() -> None:
    assert "the CA is called" in refusal(pem(crossed(other_root(), name="Another CA")))


def test_the_own_certificate_is_no_alternate() -> None:
    assert "own certificate" in refusal(pem(issuing().certificate))


def test_another_key_identifier_is_refused() -> None:
    other, good = other_root(), crossed(other_root())
    builder = (
        x509.CertificateBuilder()
        .issuer_name(other.certificate.subject)
        .subject_name(good.subject)
        .public_key(good.public_key())
        .serial_number(3)
        .not_valid_before(good.not_valid_before_utc)
        .not_valid_after(good.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(b"other"), critical=False)
    )
    assert "subject key identifier" in refusal(pem(sign(builder, other.key)))


def test_a_certificate_that_makes_no_ca_is_refused() -> None:
    other, good = other_root(), crossed(other_root())
    builder = (
        x509.CertificateBuilder()
        .issuer_name(other.certificate.subject)
        .subject_name(good.subject)
        .public_key(good.public_key())
        .serial_number(3)
        .not_valid_before(good.not_valid_before_utc)
        .not_valid_after(good.not_valid_after_utc)
    )
    assert "does not let its key sign certificates" in refusal(pem(sign(builder, other.key)))


def test_certificates_out_of_their_time_are_refused() -> None:
    late = crossed(other_root(), not_after=NOW - timedelta(hours=1), not_before=NOW - timedelta(hours=2))
    assert "has expired" in refusal(pem(late))
    early = crossed(other_root(), not_before=NOW + timedelta(hours=1))
    assert "is not valid yet" in refusal(pem(early))


def test_what_does_not_follow_is_refused() -> None:
    assert "which follows it" in refusal(pem(crossed(other_root()), pki.root().certificate))


def test_a_path_length_that_is_used_up_is_refused() -> None:
    other = other_root()
    between = pki.below(other, common_name="Between", path_length=1)
    too_short = pki.below(other, common_name="Between", path_length=0)
    cross = crossed(between)
    assert "path length" in refusal(pem(cross, too_short.certificate))
