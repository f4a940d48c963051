"""Requests that OpenSSL and Go read are read, and what is refused is named."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.csr import MAXIMUM_REQUEST, CertificateRequest, InvalidRequest, parse_request
from kms.pki.der import MalformedDER
from kms.pki.names import dns_name, ip_address
from kms.pki.pkcs10 import read_request
from tests.support import csrs, pki
from tests.support.csrs import (
    BMP,
    COMMON_NAME,
    IA5,
    IP,
    ORGANIZATION,
    SEQUENCE,
    SET,
    T61,
    UTF8,
    alternative_names,
    attribute_list,
    extension,
    oid,
    request,
    requested,
    sign,
    subject,
    tlv,
)
from tests.support.processor import least_time

WEB = "www.example.com"
SAN = alternative_names(WEB)
LENIENT: Mapping[str, Callable[[], bytes]] = {
    "version 1": lambda: request(SAN, version=b"\x01"),
    "version 2": lambda: request(SAN, version=b"\x02"),
    "version 3": lambda: request(SAN, version=b"\x03"),
    "attributes in another order": lambda: request(
        SAN, before=[csrs.text_attribute(csrs.CHALLENGE_PASSWORD, b"x" * 200)]
    ),
    "critical FALSE": lambda: request(alternative_names(WEB, critical=b"\x00")),
    "basicConstraints with cA FALSE": lambda: request(
        SAN, extension("2.5.29.19", tlv(SEQUENCE, tlv(csrs.BOOLEAN, b"\x00")))
    ),
    "Latin-1 in a T61String": lambda: request(SAN, name=subject((ORGANIZATION, T61, "Müller".encode("latin-1")))),
    "an empty attribute": lambda: request(SAN, name=subject((ORGANIZATION, UTF8, b""))),
    "a key usage that cannot be read": lambda: request(SAN, extension("2.5.29.15", b"\x05\x00")),
    "certificate policies that cannot be read": lambda: request(SAN, extension("2.5.29.32", b"xyz")),
    "certbot 1.28": csrs.certbot,
    "acme-client for Ruby": csrs.acme_client_of_ruby,
    "Crypt::LE": csrs.crypt_le,
    "openssl req": csrs.openssl,
}
"""Each for WEB alone."""


def refusal(der: bytes) -> str:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(der)
    return str(refused.value)


@pytest.mark.parametrize("what", sorted(LENIENT))
def test_what_openssl_reads_is_read(what: str) -> None:
    der = LENIENT[what]()
    assert parse_request(der).names == {dns_name(WEB)}
    checked = subprocess.run(
        ["openssl", "req", "-inform", "DER", "-noout", "-verify"], input=der, capture_output=True, check=False
    )
    assert b"verify OK" in checked.stdout + checked.stderr


@pytest.mark.requirement("SEC30")
@pytest.mark.parametrize("what", sorted(LENIENT))
def test_its_signature_is_verified_over_the_bytes_as_they_were_received(what: str) -> None:
    der = LENIENT[what]()
    signed = read_request(der).signed
    assert signed in der
    position = der.index(signed) + signed.index(WEB.encode())
    assert "signature" in refusal(der[:position] + b"v" + der[position + 1 :])


@pytest.mark.requirement("SEC30")
@pytest.mark.parametrize("octet", [0, 1, 2, 3])
def test_the_version_is_part_of_what_is_signed(octet: int) -> None:
    der = request(SAN, version=bytes([octet]))
    assert der.count(bytes([2, 1, octet])) >= 1
    assert "signature" in refusal(der.replace(bytes([2, 1, octet]), bytes([2, 1, octet ^ 4]), 1))


def test_a_request_without_attributes_is_read() -> None:
    name = subject((COMMON_NAME, UTF8, WEB.encode()))
    assert parse_request(sign(csrs.info(name=name))).names == {dns_name(WEB)}


def test_extensions_in_the_attribute_that_microsoft_used_are_read() -> None:
    attribute = requested(SAN, attribute=csrs.MICROSOFT_EXTENSION_REQUEST)
    assert parse_request(sign(csrs.info(attribute_list(attribute)))).names == {dns_name(WEB)}


def test_the_address_in_the_request_of_acme_sh_is_read() -> None:
    read = parse_request(csrs.acme_sh((IP, b"\x0a\x00\x00\x01")))
    assert read.names == {ip_address("10.0.0.1")}
    assert read.subject == {"organizations": ("acme.sh",)}
    assert read.usages == ("server auth", "client auth")


def test_texts_are_read_in_their_encodings() -> None:
    read = parse_request(
        request(
            name=subject(
                (COMMON_NAME, BMP, WEB.encode("utf-16-be")),
                (ORGANIZATION, T61, "Müller".encode("latin-1")),
                (ORGANIZATION, 0x1C, "Zoë".encode("utf-32-be")),
                ("2.5.4.45", csrs.BITS, b"\0\xff"),
            )
        )
    )
    assert read.common_name == WEB
    assert read.subject == {"organizations": ("Müller", "Zoë"), "2.5.4.45": ("(not text)",)}


def test_usages_and_other_extensions_are_told() -> None:
    read = parse_request(
        request(
            SAN,
            extension("2.5.29.15", b"\x03\x02\x05\xa0"),
            extension("2.5.29.37", tlv(SEQUENCE, oid("1.3.6.1.5.5.7.3.4"), oid("1.3.6.1.4.1.311.20.2.2"))),
            extension("1.3.6.1.5.5.7.1.24", b"\x30\x03\x02\x01\x05"),
            extension("2.5.29.14", b"\x04\x01\x00"),
            extension("1.2.3.4", b"\x05\x00", critical=b"\xff"),
        )
    )
    assert read.usages == ("digital signature", "key encipherment", "email protection", "1.3.6.1.4.1.311.20.2.2")
    assert read.extensions == ("1.3.6.1.5.5.7.1.24 (tlsfeature, OCSP must-staple)", "1.2.3.4")


WITH_SAN = attribute_list(requested(SAN))
TWICE = alternative_names("admin.example.com")


@pytest.mark.requirement("SEC28", "SEC40")
@pytest.mark.parametrize(
    ("der", "says"),
    [
        (request(SAN, TWICE), "extension 2.5.29.17 (subjectAltName) occurs twice"),
        (request(SAN, after=[requested(TWICE)]), "extension 2.5.29.17 (subjectAltName) occurs twice"),
        (
            request(SAN, after=[requested(TWICE, attribute=csrs.MICROSOFT_EXTENSION_REQUEST)]),
            "extension 2.5.29.17 (subjectAltName) occurs twice",
        ),
        (request(extension("1.2.3.4", b""), extension("1.2.3.4", b""), SAN), "extension 1.2.3.4 occurs twice"),
        (
            sign(
                csrs.info(
                    attribute_list(
                        tlv(SEQUENCE, oid(csrs.EXTENSION_REQUEST), tlv(SET, tlv(SEQUENCE, SAN), tlv(SEQUENCE)))
                    )
                )
            ),
            "attribute 1.2.840.113549.1.9.14 has more than one value",
        ),
        (sign(csrs.info(WITH_SAN), more=[b"\x05\x00"]), "the request has 2 bytes too many"),
        (sign(csrs.info(WITH_SAN, b"\x05\x00")), "the part that is signed has 2 bytes too many"),
        (request(SAN) + b"\x00", "the request has 1 bytes too many"),
        (request(extension("2.5.29.17", csrs.names(WEB) + b"\x00")), "subjectAltName has 1 bytes too many"),
        (request(extension("2.5.29.17", b"\x04\x00")), "subjectAltName is of type OCTET STRING and not of type SEQ"),
        (request(extension("2.5.29.17", b"\x30\x05\x82\x09a")), "subjectAltName is cut off"),
        (request(extension("2.5.29.17", b"\x30\x80\x00\x00")), "subjectAltName has an indefinite length"),
        (request(extension("2.5.29.17", b"\x30\x81\x03\x82\x01a")), "the length of subjectAltName is not in its short"),
        (request(SAN, version=b""), "the version is a number of 0 octets"),
        (request(SAN, version=b"\x01" * 9), "the version is a number of 9 octets"),
        (request(SAN, name=tlv(SET)), "the subject is of type SET and not of type SEQUENCE"),
        (request(SAN, name=subject((ORGANIZATION, UTF8, b"\xff"))), "the value of 2.5.4.10 in the subject is not text"),
        (request(SAN, name=subject((ORGANIZATION, BMP, b"\x00"))), "the value of 2.5.4.10 in the subject is not text"),
        (request(SAN, name=subject((ORGANIZATION, csrs.BITS, b"\0"))), "a value of organizations that is not text"),
        (sign(csrs.info(WITH_SAN), unused_bits=b"\1"), "the signature is not a number of whole octets"),
        (
            sign(csrs.info(WITH_SAN), algorithm=tlv(SEQUENCE, oid("1.2.840.10045.4.3.2"), tlv(SEQUENCE))),
            "the signature algorithm has 2 bytes too many",
        ),
        (sign(csrs.info(WITH_SAN), algorithm=tlv(SEQUENCE, oid("1.2.840.10045.4.1"))), "(1.2.840.10045.4.1)"),
        (
            sign(csrs.info(WITH_SAN), algorithm=tlv(SEQUENCE, oid("1.2.840.113549.1.1.11"), tlv(SEQUENCE))),
            "the signature algorithm has 2 bytes too many",
        ),
        (
            sign(csrs.info(WITH_SAN), algorithm=tlv(SEQUENCE, oid("1.2.840.113549.1.1.11"), b"\x05\x00")),
            "(RSA-SHA256) does not fit its ECDSA-P256 key",
        ),
        (
            request(tlv(SEQUENCE, b"\x06\x04\x55\x1d\x80\x11", tlv(csrs.OCTETS, csrs.names(WEB)))),
            "an extension is an object identifier with a leading zero",
        ),
        (request(alternative_names((IP, b"\x0a\0\0"))), "an IP address of 3 octets"),
        (request(alternative_names((0x89, b"x"))), "a name of tag 0x89"),
        (request(alternative_names("a.example\0.evil.example")), "name that is not accepted"),
        (request(alternative_names((0x82, b"\xffa.example"))), "must be written as A-labels"),
        (request(*([alternative_names(*["a.example"] * 1001)])), "more than 1000 names"),
        (request(SAN, name=subject(*[(ORGANIZATION, UTF8, b"x")] * 33)), "the subject has more than 32 attributes"),
        (
            request(SAN, after=[csrs.text_attribute("1.2.3.4", b"x")] * 32),
            "it has more than 32 attributes",
        ),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n", "it is PEM"),
        (b"", "the request is missing"),
    ],
)
def test_a_refusal_names_what_is_wrong(der: bytes, says: str) -> None:
    assert says in refusal(der)


def test_a_common_name_with_a_nul_is_not_the_name_before_it() -> None:
    read = parse_request(request(SAN, name=subject((COMMON_NAME, UTF8, b"admin.example.com\0.example.com"))))
    assert read.names == {dns_name(WEB)}


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (tlv(SEQUENCE, tlv(SEQUENCE, oid("1.3.101.113")), tlv(csrs.BITS, b"\0" * 58)), "algorithm Ed448"),
        (
            tlv(
                SEQUENCE,
                tlv(SEQUENCE, oid("1.2.840.10045.2.1"), oid("1.3.132.0.10")),
                tlv(csrs.BITS, b"\0\4" + b"\1" * 64),
            ),
            "algorithm elliptic curve, with the curve 1.3.132.0.10",
        ),
        (tlv(SEQUENCE, tlv(csrs.INTEGER, b"\x7f" * 256), tlv(csrs.INTEGER, b"\1\0\1")), "the algorithm of the"),
    ],
)
def test_a_key_that_is_refused_is_named(key: bytes, says: str) -> None:
    signed = tlv(SEQUENCE, tlv(csrs.INTEGER, b"\0"), tlv(SEQUENCE), key, WITH_SAN)
    assert says in refusal(sign(signed))


def test_the_signature_of_another_request_is_none() -> None:
    one, other = request(SAN), request(TWICE)
    signature = read_request(other).signature
    swapped = tlv(SEQUENCE, read_request(one).signed, csrs.ECDSA_SHA256, tlv(csrs.BITS, b"\0" + signature))
    assert "signature" in refusal(swapped)


def compare(der: bytes) -> None:
    """Check that the request was read as cryptography reads it, where that reads it."""
    try:
        known = x509.load_der_x509_csr(der)
        extensions = known.extensions
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension, KeyError, x509.UnsupportedGeneralNameType):
        return
    try:
        read = read_request(der)
    except MalformedDER:
        return
    assert (read.signed, read.signature) == (known.tbs_certrequest_bytes, known.signature)
    assert read.signature_algorithm == known.signature_algorithm_oid.dotted_string
    assert list(read.extensions) == [each.oid.dotted_string for each in extensions]
    try:
        request = parse_request(der)
    except InvalidRequest:
        return
    assert known.is_signature_valid
    assert names_of(known, extensions) <= {each.value for each in request.names}


def names_of(known: x509.CertificateSigningRequest, extensions: x509.Extensions) -> set[str]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {
        *map(str.lower, names.get_values_for_type(x509.DNSName)),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    }


SEEDS = (
    pki.csr("a.example", "10.0.0.1", common_name="a.example"),
    pki.csr("*.example.com", signed_with=pki.key("RSA", 2048)),
    pki.csr("a.example", signed_with=pki.key("Ed25519", None)),
    csrs.openssl(),
)


@pytest.mark.parametrize("der", SEEDS)
def test_requests_are_read_as_cryptography_reads_them(der: bytes) -> None:
    assert isinstance(parse_request(der), CertificateRequest)
    compare(der)


@pytest.mark.requirement("SEC40")
@given(st.sampled_from(SEEDS), st.data())
def test_damaged_requests_are_read_as_cryptography_reads_them(seed: bytes, data: st.DataObject) -> None:
    der = bytearray(seed)
    for _ in range(data.draw(st.integers(min_value=1, max_value=3))):
        der[data.draw(st.integers(min_value=0, max_value=len(der) - 1))] = data.draw(st.integers(0, 255))
    compare(bytes(der))


@pytest.mark.requirement("SEC74")
@pytest.mark.parametrize(
    "filler",
    [
        b"\x30\x00",
        b"\x31\x00",
        tlv(SEQUENCE, oid("1.2")),
        tlv(SEQUENCE, oid("2.999" + ".4294967295" * 11)),
        extension("1.2.3.4", b""),
    ],
)
@pytest.mark.parametrize("place", ["subject", "attributes", "extensions", "names"])
def test_the_longest_request_takes_milliseconds(filler: bytes, place: str) -> None:
    parts = filler * ((MAXIMUM_REQUEST - 500) // len(filler))
    match place:
        case "subject":
            der = request(SAN, name=tlv(SEQUENCE, parts))
        case "attributes":
            der = sign(csrs.info(tlv(0xA0, parts)))
        case "extensions":
            der = request(parts)
        case _:
            der = request(extension("2.5.29.17", tlv(SEQUENCE, parts)))
    assert len(der) <= MAXIMUM_REQUEST

    def read() -> None:
        refusal(der)

    assert least_time(read) < 0.02


def test_an_extension_request_without_a_value_asks_for_nothing() -> None:
    attribute = tlv(SEQUENCE, oid(csrs.EXTENSION_REQUEST), tlv(SET))
    name = subject((COMMON_NAME, IA5, WEB.encode()))
    assert parse_request(sign(csrs.info(attribute_list(attribute), name=name))).extensions == ()
