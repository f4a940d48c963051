from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from kms.pki.csr import MAXIMUM_REQUEST, InvalidRequest, parse_request
from kms.pki.keys import same_public_key
from kms.pki.names import Name, dns_name, ip_address
from tests.support.pki import csr, csr_builder, key, signed
from tests.support.processor import least_time

MD5_REQUEST = base64.b64decode(
    "MIICWTCCAUECAQAwFDESMBAGA1UEAwwJYS5leGFtcGxlMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA07x1b7FYBz87cnM1EOuR"
    "bN88JF79MsOqXMqAfE34hSwuulnvnwA/D4GpnnazSd6O4/KTe6KLwEdjU3LqwvR/6q73iSdCKwlcQTZlIitoRNi9o1ZPAMbEFKHZm0u2k3hm"
    "VltcuNUU8cx1pZk+2N1KoJiJ7gFhF5+h0tjS9unGHByR1WkcVLnj5ejbe6WkXbRFSAiH+hbLij2emNQNdCcbUT+A2vtiUpG45oYl1rSQ6GJk"
    "0DbrDo9d3YaR5Q+5AEcpWnc2One3ejZ1Zl0gRCWoY2nQZPFSsCZRanPUl96WATKALpvm0OWsbkt9kxBsajpcfRv7iGtFC7tuMpPKmLDFYwID"
    "AQABoAAwDQYJKoZIhvcNAQEEBQADggEBAEJOVEe5vBJuqDMyilLi7qPGNtmVOneLafDpvQoVZ6UOIEZyR0i2FiERfnu5Km773tUnVksOVaOV"
    "C6F74QEADkoTGkACu4EsLw0MPAw7aREvjX6IO+RVSudpoTf78G7FM+zbA93TE72lcUjNcBeREBeTs0CgbWMwIUPpYc96EbISYwqx1s8PewQ3"
    "nqrOO5DxEFV1ULrORe2T6g3TGEBbgArk6SZkk7AUl5p/ck96UNunvFluZDzIiq6a3N4TPQBPPmHTPH08No3LBmh4uRG6zCbZWhNBMGfl6fs/"
    "tMZlzpsLs+k5Zs5syqoYjVsMfjhmqISS+/r3oCzu6jR1k9UIorA="
)
SHA1_REQUEST = base64.b64decode(
    "MIICWTCCAUECAQAwFDESMBAGA1UEAwwJYS5leGFtcGxlMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAwU/rrYVvH7adI4ZMVp5N"
    "hJb7iB3hyIjn3iKHYKoOvDlH8q02WMbJx76FDe9/pDQls8BEXvuMXZ96yAxdUpzfoI7wUk+DDXRRzDYnsW07ciJKFOrHd0GY/+SUqzT7boQD"
    "IZu9tsMsLVnhMby7TXD9fbjVqJhYmirEglwjc742oXnwVPw/o79K7vHCJhEX6Lns7MWGcVdIJlKVR1afSMCA34vVw7awcKrOwQorN9IJjdKI"
    "0deHGZbouO/pFvoeQTZLBPfpap6y6dGv6GAqFX60cHjvv56nOm0o2RWT3KCa76HIVz+jIWIWrhg82MwjX1eobo2Xuocdzk2wrP3tkEoDUQID"
    "AQABoAAwDQYJKoZIhvcNAQEFBQADggEBAIjQsgh3bpum8OyQgrgs+XEwatHQ0IUI72wwVpd3Ln1pe0TcVIPrio1NeZKYI00hLyi8rcJ38JlB"
    "F3hq1tGwopeckPVEiQsGAXxwn6xvveqGRTMP6X45LpWxOvp6G8mncEmTnzFHr38bmiZBBZ3JRnkXLEnNEefMJerqmq/cRmB7zIz1I1xdrDvt"
    "hM94QsxkNTautNFTsZRv/aRDsGPHeggHZAKEguY3IHmFnsRuXy/8JBOMrYcwoZIlFkKwaL/hWL3uAgps4C9XXNv5lzLn/8CLEYOmqLNxsWn/"
    "Q5gvDwQE0tJ8zNxU0+ohP0a/QoR1f2hh8oDhCv8sr3MxKuJJhBA="
)


def refusal(der: bytes) -> str:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(der)
    return str(refused.value)


def test_a_request_is_read_once_and_whole() -> None:
    der = csr("WWW.example.com", "example.com", "10.0.0.1", "2001:db8::1", common_name="Example.com")
    request = parse_request(der)
    assert request.der == der
    assert request.digest == hashlib.sha256(der).hexdigest()
    assert same_public_key(request.public_key, key().public_key())
    assert request.key_algorithm == "ECDSA-P256"
    assert request.signature_algorithm == "ECDSA-SHA256"
    assert request.names == {
        dns_name("www.example.com"),
        dns_name("example.com"),
        ip_address("10.0.0.1"),
        ip_address("2001:db8::1"),
    }
    assert request.common_name == "example.com"
    assert request.subject == {}


@pytest.mark.parametrize(
    ("algorithm", "size", "names"),
    [
        ("RSA", 2048, ("RSA-2048", "RSA-SHA256")),
        ("ECDSA", 384, ("ECDSA-P384", "ECDSA-SHA256")),
        ("Ed25519", None, ("Ed25519", "Ed25519")),
    ],
)
def test_the_algorithms_go_by_the_names_of_policies(algorithm: str, size: int | None, names: tuple[str, str]) -> None:
    request = parse_request(csr("a.example", signed_with=key(algorithm, size)))
    assert (request.key_algorithm, request.signature_algorithm) == names


def test_a_common_name_that_is_a_name_counts_as_one() -> None:
    assert parse_request(csr(common_name="A.example")).names == {dns_name("a.example")}
    assert parse_request(csr("b.example", common_name="10.0.0.1")).names == {
        dns_name("b.example"),
        ip_address("10.0.0.1"),
    }


def test_a_common_name_that_is_no_name_is_kept_as_text() -> None:
    request = parse_request(csr("a.example", common_name="My Server"))
    assert request.common_name == "My Server"
    assert request.names == {dns_name("a.example")}


def test_other_attributes_of_the_subject_are_told_apart() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Other"),
                x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@example.com"),
                x509.NameAttribute(NameOID.COMMON_NAME, "a.example"),
            ]
        )
    )
    request = parse_request(signed(builder, key()))
    assert request.subject == {"organizations": ("Example", "Other"), "emailAddress": ("a@example.com",)}


def test_a_wildcard_is_a_name_like_any_other() -> None:
    assert parse_request(csr("*.Example.com")).names == {Name("dns", "*.example.com")}


def test_a_name_that_is_there_twice_counts_once() -> None:
    assert len(parse_request(csr("a.example", "A.EXAMPLE", common_name="a.example")).names) == 1


@pytest.mark.requirement("PROF-M7", "SEC29")
def test_extensions_that_ask_for_more_select_nothing() -> None:
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.TLSFeature([x509.TLSFeatureType.status_request]), False),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), True),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (key_usage(), True),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),
    ]
    assert parse_request(csr("a.example", extensions=extensions)).names == {dns_name("a.example")}


def key_usage(**bits: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{**dict.fromkeys(names, False), "digital_signature": True, **bits})


@pytest.mark.requirement("SEC29")
@pytest.mark.parametrize(
    ("extension", "says"),
    [
        (x509.BasicConstraints(ca=True, path_length=None), "CA certificate"),
        (x509.BasicConstraints(ca=True, path_length=0), "CA certificate"),
        (key_usage(key_cert_sign=True), "key usage of a CA"),
        (key_usage(crl_sign=True), "key usage of a CA"),
    ],
)
def test_a_request_for_a_ca_is_refused(extension: x509.ExtensionType, says: str) -> None:
    assert says in refusal(csr("a.example", extensions=[(extension, True)]))


@pytest.mark.requirement("SEC28")
@pytest.mark.parametrize(
    ("general_name", "says"),
    [
        (x509.RFC822Name("a@example.com"), "an email address"),
        (x509.UniformResourceIdentifier("https://example.com"), "a URI"),
        (x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7"), b"\x16\x01a"), "an otherName"),
        (x509.RegisteredID(x509.ObjectIdentifier("1.2.3")), "a registered ID"),
        (x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])), "a directory name"),
    ],
)
def test_only_dns_names_and_addresses_are_taken(general_name: x509.GeneralName, says: str) -> None:
    extension = x509.SubjectAlternativeName([x509.DNSName("a.example"), general_name])
    assert says in refusal(csr(extensions=[(extension, False)]))


@pytest.mark.parametrize("name", ["127.1", "10.0.0.1", "a.example.", "_a.example", "*", "a.*.example", "xn--zz", ""])
def test_a_dns_name_that_is_none_is_refused(name: str) -> None:
    extension = x509.SubjectAlternativeName([x509.DNSName("a.example"), x509.DNSName(name)])
    assert "name that is not accepted" in refusal(csr(extensions=[(extension, False)]))


@pytest.mark.requirement("IP-M1")
def test_an_ipv4_address_in_ipv6_form_is_refused() -> None:
    assert 'write "10.0.0.1"' in refusal(csr("a.example", "::ffff:10.0.0.1"))


@pytest.mark.parametrize("builder", [csr_builder(), csr_builder(common_name="My Server")])
def test_a_request_without_a_name_is_refused(builder: x509.CertificateSigningRequestBuilder) -> None:
    assert "no DNS name and no IP address" in refusal(signed(builder, key()))


def test_two_common_names_are_refused() -> None:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("a.example", "b.example")]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    assert "more than one common name" in refusal(signed(builder, key()))


def with_long_organization() -> bytes:
    attributes = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "a" * 70),
        x509.NameAttribute(NameOID.COMMON_NAME, "a.example"),
    ]
    return signed(x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes)), key())


def test_values_that_no_certificate_has_room_for_are_the_policys_business() -> None:
    assert parse_request(with_long_organization()).subject == {"organizations": ("a" * 70,)}


@pytest.mark.requirement("SEC40")
def test_a_tls_feature_that_the_library_does_not_know_is_not_used() -> None:
    feature = x509.UnrecognizedExtension(x509.oid.ExtensionOID.TLS_FEATURE, b"\x30\x03\x02\x01\x04")
    assert parse_request(csr("a.example", extensions=[(feature, False)])).names == {dns_name("a.example")}


@pytest.mark.requirement("SEC30")
def test_a_signature_by_another_key_is_refused() -> None:
    der = bytearray(csr("a.example"))
    der[-1] ^= 1
    assert "signature" in refusal(bytes(der))


@pytest.mark.requirement("SEC30")
def test_a_request_that_was_changed_after_it_was_signed_is_refused() -> None:
    assert "signature" in refusal(csr("a.example").replace(b"a.example", b"b.example"))


@pytest.mark.requirement("SEC30")
def test_weak_digests_are_refused() -> None:
    assert "algorithm that is not accepted" in refusal(MD5_REQUEST)
    assert "algorithm that is not accepted" in refusal(SHA1_REQUEST)


def test_a_signature_with_pss_is_refused() -> None:
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    private_key = key("RSA", 2048)
    assert isinstance(private_key, rsa.RSAPrivateKey)
    der = csr_builder("a.example").sign(private_key, hashes.SHA256(), rsa_padding=pss).public_bytes(Encoding.DER)
    assert "use one of ECDSA-SHA256" in refusal(der)


@pytest.mark.requirement("SEC32")
@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.SECP224R1(), ec.BrainpoolP256R1()])
def test_a_key_on_another_curve_is_refused(curve: ec.EllipticCurve) -> None:
    private_key = ec.generate_private_key(curve)
    der = csr_builder("a.example").sign(private_key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert "key of the certificate request" in refusal(der)


@pytest.mark.requirement("SEC32")
def test_a_key_of_another_kind_is_refused() -> None:
    der = csr_builder("a.example").sign(ed448.Ed448PrivateKey.generate(), None).public_bytes(Encoding.DER)
    assert "not accepted" in refusal(der)


@cache
def rsa_request(size: int, exponent: int) -> bytes:
    private_key = rsa.generate_private_key(exponent, size)
    return csr_builder("a.example").sign(private_key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.requirement("S156", "SEC32")
@pytest.mark.parametrize(
    ("size", "exponent", "says"), [(1024, 65537, "RSA-1024 is not among"), (2048, 3, "exponent is 3, not 65537")]
)
def test_a_weak_key_is_refused(size: int, exponent: int, says: str) -> None:
    assert says in refusal(rsa_request(size, exponent))


def with_modulus(number: int) -> bytes:
    """A request with this modulus in place of its own, whose signature does not fit any more."""
    der = csr("a.example", signed_with=key("RSA", 2048))
    public_key = key("RSA", 2048).public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    own = public_key.public_numbers().n.to_bytes(256, "big")
    assert der.count(own) == 1
    return der.replace(own, number.to_bytes(256, "big"))


@pytest.mark.requirement("SEC41")
def test_a_weak_key_is_told_before_the_signature_is_looked_at() -> None:
    assert "small prime factor" in refusal(with_modulus(3 * 2**2046 + 3))
    assert "signature" in refusal(with_modulus(2**2048 - 1941903))


@pytest.mark.requirement("SEC36")
def test_a_request_that_is_too_large_is_not_even_parsed() -> None:
    assert "larger than 16384 bytes" in refusal(b"\x30" * (MAXIMUM_REQUEST + 1))
    assert "not well-formed" in refusal(b"\x30" * MAXIMUM_REQUEST)


@pytest.mark.requirement("SEC36")
def test_a_request_with_very_many_extensions_is_refused() -> None:
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.{each}"), b"\x05\x00"), False) for each in range(40)
    ]
    assert "more than 32 extensions" in refusal(csr("a.example", extensions=extensions))


@pytest.mark.requirement("SEC36", "SEC41")
def test_a_request_for_very_many_names_is_read_within_milliseconds() -> None:
    names = [f"{each:05}.example" for each in range(900)]
    der = csr(*names)
    assert len(der) <= MAXIMUM_REQUEST
    assert len(parse_request(der).names) == 900
    assert least_time(lambda: parse_request(der)) < 0.05


@pytest.mark.requirement("SEC28")
@pytest.mark.parametrize("trailing", [b"\x00", b"\x30\x00", b"-----"])
def test_bytes_behind_the_request_are_refused(trailing: bytes) -> None:
    assert "not well-formed" in refusal(csr("a.example") + trailing)


@pytest.mark.requirement("SEC36")
def test_pem_is_not_taken_for_der() -> None:
    pem = csr_builder("a.example").sign(key(), hashes.SHA256()).public_bytes(Encoding.PEM)
    assert "not well-formed" in refusal(pem)


@pytest.mark.requirement("SEC40")
@given(st.binary(max_size=400))
def test_any_bytes_are_a_request_or_refused(der: bytes) -> None:
    refusal(der)


SEEDS: Mapping[str, bytes] = {
    "names": csr("a.example", "10.0.0.1", common_name="a.example"),
    "key usage": csr("a.example", extensions=[(key_usage(), True), (x509.BasicConstraints(False, None), True)]),
    "rsa": csr("a.example", signed_with=key("RSA", 2048)),
    "ed25519": csr("a.example", signed_with=key("Ed25519", None)),
}


@pytest.mark.requirement("SEC40")
@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_a_damaged_request_is_never_more_than_refused(seed: str, data: st.DataObject) -> None:
    der = bytearray(SEEDS[seed])
    for _ in range(data.draw(st.integers(min_value=1, max_value=4))):
        position = data.draw(st.integers(min_value=0, max_value=len(der) - 1))
        match data.draw(st.sampled_from(["replace", "remove", "insert"])):
            case "replace":
                der[position] = data.draw(st.integers(min_value=0, max_value=255))
            case "remove":
                del der[position]
            case _:
                der.insert(position, data.draw(st.integers(min_value=0, max_value=255)))
    try:
        request = parse_request(bytes(der))
    except InvalidRequest as refused:
        assert str(refused).endswith(".")  # noqa: PT017 - either outcome is right, but not any other
    else:
        assert request.names
