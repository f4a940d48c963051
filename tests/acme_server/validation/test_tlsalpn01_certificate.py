from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from acme_server.validation.tlsalpn01_certificate import MAXIMUM_CERTIFICATE, WrongCertificate, check
from kms.resources.orders import Identifier
from tests.support.alpn import OBSOLETE, certificate, digest_of
from tests.support.processor import least_time

NAME = "web.example.com"
DIGEST = digest_of("token.thumbprint")
DNS = Identifier(type="dns", value=NAME)


def checked(presented: x509.Certificate, identifier: Identifier = DNS) -> None:
    check(presented.public_bytes(Encoding.DER), identifier, DIGEST[2:])


def complaint(presented: x509.Certificate | bytes, identifier: Identifier = DNS) -> str:
    der = presented if isinstance(presented, bytes) else presented.public_bytes(Encoding.DER)
    with pytest.raises(WrongCertificate) as caught:
        check(der, identifier, DIGEST[2:])
    return str(caught.value)


@pytest.mark.requirement("ALPN-M6", "ALPN-M7", "SEC48")
@pytest.mark.parametrize("name", [NAME, "WEB.Example.COM"])
def test_a_self_signed_certificate_with_name_and_digest_proves_control(name: str) -> None:
    checked(certificate([x509.DNSName(name)], DIGEST))


@pytest.mark.requirement("IP-M4", "SEC48")
@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1"])
def test_an_address_is_proven_by_an_address(address: str) -> None:
    identifier = Identifier(type="ip", value=address)
    checked(certificate([x509.IPAddress(ip_address(address))], DIGEST), identifier)
    assert "iPAddress" in complaint(certificate([x509.DNSName(address)], DIGEST), identifier)
    assert "iPAddress" in complaint(certificate([x509.IPAddress(ip_address("10.0.0.2"))], DIGEST), identifier)


@pytest.mark.requirement("ALPN-M6", "SEC48")
@pytest.mark.parametrize(
    "names",
    [
        [],
        [x509.DNSName(NAME), x509.DNSName(NAME)],
        [x509.DNSName(NAME), x509.DNSName("other.example.com")],
        [x509.DNSName(NAME), x509.IPAddress(ip_address("10.0.0.1"))],
        [x509.DNSName(NAME), x509.RFC822Name("a@example.com")],
    ],
)
def test_more_or_fewer_than_one_name_prove_nothing(names: list[x509.GeneralName]) -> None:
    assert "exactly one" in complaint(certificate(names, DIGEST))


@pytest.mark.requirement("ALPN-M6", "SEC48")
@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("other.example.com"),
        x509.DNSName("*.example.com"),
        x509.DNSName(f"{NAME}."),
        x509.DNSName(f"{NAME}\0.evil.example"),
        x509.UniformResourceIdentifier(NAME),
        x509.RFC822Name(NAME),
        x509.RegisteredID(ObjectIdentifier("1.2.3")),
        x509.OtherName(ObjectIdentifier("1.2.3"), b"\x04\x00"),
        x509.DirectoryName(x509.Name([])),
        x509.IPAddress(ip_address("10.0.0.1")),
    ],
)
def test_another_name_proves_nothing_and_is_not_repeated(name: x509.GeneralName) -> None:
    told = complaint(certificate([name], DIGEST))
    assert "dNSName" in told
    assert "evil" not in told


def test_a_common_name_is_no_name() -> None:
    assert complaint(certificate(None, DIGEST)) == "has no subject alternative name"


@pytest.mark.requirement("ALPN-M7", "SEC48")
def test_the_obsolete_extension_proves_nothing() -> None:
    assert "obsolete draft" in complaint(certificate([x509.DNSName(NAME)], DIGEST, oid=OBSOLETE))
    assert "no acmeIdentifier" in complaint(certificate([x509.DNSName(NAME)], None))


@pytest.mark.requirement("ALPN-M7", "SEC48")
def test_the_extension_must_be_critical() -> None:
    assert "not critical" in complaint(certificate([x509.DNSName(NAME)], DIGEST, critical=False))


@pytest.mark.requirement("ALPN-M7", "SEC48")
@pytest.mark.parametrize(
    "value",
    [b"", DIGEST[2:], DIGEST[:-1], DIGEST + b"\0", b"\x04\x81" + DIGEST[1:], b"\x03" + DIGEST[1:], bytes(34)],
)
def test_any_other_value_proves_nothing(value: bytes) -> None:
    assert "not the digest" in complaint(certificate([x509.DNSName(NAME)], value))


def test_a_certificate_that_is_too_long_is_not_read() -> None:
    long = certificate([x509.DNSName(f"{number}.example.com") for number in range(2000)], DIGEST)
    assert f"longer than {MAXIMUM_CERTIFICATE} bytes" in complaint(long)


@pytest.mark.requirement("SEC41")
def test_the_most_laborious_certificate_is_read_in_a_moment() -> None:
    laborious = certificate([x509.DNSName("a")] * 5000, DIGEST)
    assert 15_000 < len(laborious.public_bytes(Encoding.DER)) < MAXIMUM_CERTIFICATE
    assert "exactly one" in complaint(laborious)
    assert least_time(lambda: complaint(laborious)) < 0.05


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x80\0\0", bytes(100), b"\x30\x82\xff\xff" + bytes(10)])
def test_what_is_no_certificate_is_malformed(der: bytes) -> None:
    assert complaint(der) == "is malformed"


@pytest.mark.requirement("SEC40")
def test_a_tls_feature_that_the_library_does_not_know_is_malformed() -> None:
    feature = x509.UnrecognizedExtension(ExtensionOID.TLS_FEATURE, b"\x30\x03\x02\x01\x04")
    assert complaint(certificate([x509.DNSName(NAME)], DIGEST, more=[feature])) == "is malformed"


GOOD = certificate(
    [x509.DNSName(NAME)],
    DIGEST,
    more=[
        x509.NameConstraints([x509.IPAddress(ip_network("10.0.0.0/8"))], None),
        x509.BasicConstraints(ca=True, path_length=1),
        x509.ExtendedKeyUsage([ObjectIdentifier("1.2.3")]),
    ],
).public_bytes(Encoding.DER)


@given(st.data())
@pytest.mark.requirement("SEC40", "SEC48")
def test_no_bytes_do_anything_else_than_prove_or_be_refused(data: st.DataObject) -> None:
    der = bytearray(GOOD)
    changes = st.tuples(st.integers(0, len(der) - 1), st.integers(0, 255))
    for position, value in data.draw(st.lists(changes, min_size=1, max_size=6)):
        der[position] = value
    try:
        check(bytes(der), DNS, DIGEST[2:])
    except WrongCertificate:
        return
    assert DIGEST in der
    assert NAME.encode() in bytes(der).lower()
