"""Certificates of CAs that are not perfect DER are read where they can be used, and else it is told what is wrong."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

from kms.pki.ca import InvalidAuthority, check_imported
from kms.pki.certificate import sign_leaf
from kms.pki.constraints import constraints_of
from kms.pki.extensions import UnreadableCertificate, find_extension
from kms.pki.keys import private_key_pem, public_key_der
from tests.support import csrs
from tests.support.csrs import BOOLEAN, COMMON_NAME, INTEGER, SEQUENCE, T61, UTF8, extension, oid, subject, tlv
from tests.support.pki import NOW, leaf

CA = extension("2.5.29.19", tlv(SEQUENCE, tlv(BOOLEAN, b"\xff"), tlv(INTEGER, b"\2")), critical=b"\xff")
SIGNING = extension("2.5.29.15", b"\x03\x02\x02\x04", critical=b"\xff")
NAMES = extension("2.5.29.30", bytes.fromhex("300fa00d300b8209") + b"a.example")
KEY_ID = extension("2.5.29.14", tlv(csrs.OCTETS, b"abc"))
POLICIES = extension("2.5.29.32", b"xyz")
X400 = extension("2.5.29.17", tlv(SEQUENCE, tlv(0xA3)))
FEATURE = extension("1.3.6.1.5.5.7.1.24", b"\x30\x03\x02\x01\x04")


def certificate(
    *extensions: bytes, version: bytes | None = b"\x02", name: tuple[str, int, bytes] = (COMMON_NAME, UTF8, b"Odd")
) -> bytes:
    """A self-signed certificate, in DER."""
    dates = tlv(SEQUENCE, tlv(0x17, b"260101000000Z"), tlv(0x17, b"360101000000Z"))
    parts = (
        b"" if version is None else tlv(0xA0, tlv(INTEGER, version)),
        tlv(INTEGER, b"\x01"),
        csrs.ECDSA_SHA256,
        subject(name),
        dates,
        subject(name),
        public_key_der(csrs.p256().public_key()),
        tlv(0xA3, tlv(SEQUENCE, *extensions)) if extensions else b"",
    )
    signed = tlv(SEQUENCE, *parts)
    signature = csrs.p256().sign(signed, ECDSA(hashes.SHA256()))
    return tlv(SEQUENCE, signed, csrs.ECDSA_SHA256, tlv(csrs.BITS, b"\0" + signature))


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def refusal(file: bytes) -> str:
    with pytest.raises(InvalidAuthority) as refused:
        check_imported(file, private_key_pem(csrs.p256()), now=NOW)
    return str(refused.value)


GOOD = certificate(CA, SIGNING)


@pytest.mark.parametrize("odd", [POLICIES, X400, FEATURE])
def test_an_extension_that_is_not_used_need_not_be_readable(odd: bytes) -> None:
    der = certificate(CA, SIGNING, odd, KEY_ID, NAMES)
    signer = check_imported(pem(der), private_key_pem(csrs.p256()), now=NOW)
    issued = sign_leaf(leaf(), signer)
    assert issued.issuer == signer.certificate.subject
    identifier = find_extension(issued, x509.AuthorityKeyIdentifier)
    assert identifier is not None
    assert identifier.key_identifier == b"abc"
    assert not signer.signs_lists
    assert [list(each.permitted.domains) for each in constraints_of(pem(der).decode())] == [["a.example"]]


def test_an_extension_that_is_absent_is_none_beside_one_that_cannot_be_read() -> None:
    odd = x509.load_der_x509_certificate(certificate(CA, POLICIES))
    assert find_extension(odd, x509.KeyUsage) is None
    constraints = find_extension(odd, x509.BasicConstraints)
    assert constraints is not None
    assert (constraints.ca, constraints.path_length) == (True, 2)


@pytest.mark.parametrize("type_", [x509.BasicConstraints, x509.KeyUsage])
def test_no_extension_is_read_where_one_occurs_twice(type_: type[x509.ExtensionType]) -> None:
    twice = x509.load_der_x509_certificate(certificate(CA, CA, SIGNING))
    with pytest.raises(UnreadableCertificate, match="occurs twice"):
        find_extension(twice, type_)


@pytest.mark.parametrize(
    ("der", "says"),
    [
        (certificate(CA, SIGNING, version=b"\x01"), "certificate 1: it is of version 2, and not 3"),
        (certificate(CA, SIGNING, version=b"\x03"), "certificate 1: it is of version 4, and not 3"),
        (certificate(version=None), "it has no basicConstraints (it is of version 1)"),
        (
            certificate(CA, SIGNING, extension("2.5.29.14", tlv(csrs.OCTETS, b"abc"), critical=b"\0")),
            "certificate 1: critical of extension 2.5.29.14 (subjectKeyIdentifier) is spelt out as FALSE",
        ),
        (certificate(CA, CA), "certificate 1: extension 2.5.29.19 (basicConstraints) occurs twice"),
        (
            certificate(extension("2.5.29.19", tlv(SEQUENCE, tlv(BOOLEAN, b"\0")))),
            "certificate 1: extension 2.5.29.19 (basicConstraints) cannot be read",
        ),
        (certificate(CA, SIGNING, extension("2.5.29.30", b"x")), "2.5.29.30 (nameConstraints) cannot be read"),
        (
            certificate(CA, SIGNING, name=(COMMON_NAME, T61, "Münster".encode("latin-1"))),
            "certificate 1: its subject has text in another encoding than it says",
        ),
        (GOOD + b"\0", "certificate 1: the certificate has 1 bytes too many"),
        (GOOD[:-9], "certificate 1: the certificate is cut off"),
        (tlv(SEQUENCE, oid("1.2")), "certificate 1: the part that is signed is of type OBJECT IDENTIFIER"),
    ],
)
def test_a_refusal_names_the_certificate_and_what_is_wrong(der: bytes, says: str) -> None:
    assert says in refusal(pem(der))


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (b"no PEM", "it has no block CERTIFICATE"),
        (private_key_pem(csrs.p256()), "it has no block CERTIFICATE, but PRIVATE KEY"),
        (pem(GOOD).replace(b"\nM", b"\n*M", 1), "certificate 1: its base64 is damaged"),
        (pem(GOOD) + pem(certificate(CA, version=b"\x03")), "certificate 2: it is of version 4"),
    ],
)
def test_a_refusal_of_a_file_says_what_is_wrong(file: bytes, says: str) -> None:
    assert says in refusal(file)
