"""Certificate requests built byte by byte, as clients send them that do not write perfect DER."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey

from kms.pki.keys import public_key_der
from tests.support.pki import key

SEQUENCE, SET, INTEGER, BOOLEAN, BITS, OCTETS, OID = 0x30, 0x31, 0x02, 0x01, 0x03, 0x04, 0x06
UTF8, PRINTABLE, T61, IA5, BMP = 0x0C, 0x13, 0x14, 0x16, 0x1E
DNS, IP, EMAIL = 0x82, 0x87, 0x81

EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
MICROSOFT_EXTENSION_REQUEST = "1.3.6.1.4.1.311.2.1.14"
UNSTRUCTURED_NAME = "1.2.840.113549.1.9.2"
CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def tlv(tag: int, *contents: bytes) -> bytes:
    """DER: tag, length, contents."""
    content = b"".join(contents)
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 128 else bytes([0x80 | len(octets)]) + octets) + content


def oid(text: str) -> bytes:
    """An object identifier."""
    first, second, *others = map(int, text.split("."))
    content = b""
    for number in (40 * first + second, *others):
        octets = [number & 0x7F]
        while number := number >> 7:
            octets.append(0x80 | number & 0x7F)
        content += bytes(reversed(octets))
    return tlv(OID, content)


def subject(*attributes: tuple[str, int, bytes]) -> bytes:
    """A distinguished name of attributes: type, tag of the text, and its octets."""
    return tlv(SEQUENCE, *(tlv(SET, tlv(SEQUENCE, oid(type_), tlv(tag, text))) for type_, tag, text in attributes))


def names(*values: str | tuple[int, bytes]) -> bytes:
    """The value of a subjectAltName: DNS names, or tag and octets of another name."""
    each = ((DNS, value.encode()) if isinstance(value, str) else value for value in values)
    return tlv(SEQUENCE, *(tlv(*name) for name in each))


def extension(type_: str, value: bytes, *, critical: bytes | None = None) -> bytes:
    """An extension; `critical` is the octet of the BOOLEAN, None leaves it out."""
    flag = b"" if critical is None else tlv(BOOLEAN, critical)
    return tlv(SEQUENCE, oid(type_), flag, tlv(OCTETS, value))


def alternative_names(*values: str | tuple[int, bytes], critical: bytes | None = None) -> bytes:
    """A subjectAltName."""
    return extension("2.5.29.17", names(*values), critical=critical)


def requested(*extensions: bytes, attribute: str = EXTENSION_REQUEST) -> bytes:
    """The attribute that contains the extensions."""
    return tlv(SEQUENCE, oid(attribute), tlv(SET, tlv(SEQUENCE, *extensions)))


def text_attribute(type_: str, text: bytes, tag: int = UTF8) -> bytes:
    """An attribute with a text."""
    return tlv(SEQUENCE, oid(type_), tlv(SET, tlv(tag, text)))


def attribute_list(*attributes: bytes) -> bytes:
    """The list of attributes, in this order."""
    return tlv(0xA0, *attributes)


def info(
    *parts: bytes, version: bytes = b"\x00", name: bytes = b"\x30\x00", with_key: EllipticCurvePrivateKey | None = None
) -> bytes:
    """The part of a request that is signed. `parts` follow the key: the list of attributes."""
    return tlv(SEQUENCE, tlv(INTEGER, version), name, public_key_der((with_key or p256()).public_key()), *parts)


def sign(
    signed: bytes, *, algorithm: bytes = ECDSA_SHA256, more: Iterable[bytes] = (), unused_bits: bytes = b"\0"
) -> bytes:
    """The request: what is signed, the algorithm, and a signature by the key of `info`."""
    signature = p256().sign(signed, ECDSA(hashes.SHA256()))
    return tlv(SEQUENCE, signed, algorithm, tlv(BITS, unused_bits + signature), *more)


def request(
    *extensions: bytes,
    version: bytes = b"\x00",
    name: bytes = b"\x30\x00",
    before: Iterable[bytes] = (),
    after: Iterable[bytes] = (),
) -> bytes:
    """A signed request with these extensions, and with attributes `before` and `after` the one that contains them."""
    return sign(info(attribute_list(*before, requested(*extensions), *after), version=version, name=name))


def in_order(*attributes: bytes) -> bytes:
    """The list of attributes in the order of DER."""
    return attribute_list(*sorted(attributes))


def p256() -> EllipticCurvePrivateKey:
    """The key of all requests here."""
    found = key()
    assert isinstance(found, EllipticCurvePrivateKey)
    return found


COMMON_NAME = x509.oid.NameOID.COMMON_NAME.dotted_string
ORGANIZATION = x509.oid.NameOID.ORGANIZATION_NAME.dotted_string
EMAIL_ADDRESS = x509.oid.NameOID.EMAIL_ADDRESS.dotted_string

_WEB = "www.example.com"
_WEB_SUBJECT = subject((COMMON_NAME, UTF8, _WEB.encode()))
_SERVER_AND_CLIENT = extension("2.5.29.37", tlv(SEQUENCE, oid("1.3.6.1.5.5.7.3.1"), oid("1.3.6.1.5.5.7.3.2")))
_NO_CA = extension("2.5.29.19", tlv(SEQUENCE))
_KEY_USAGE = extension("2.5.29.15", b"\x03\x02\x05\xe0")


def certbot() -> bytes:
    """As acme 1.28 of certbot: version 2, no subject."""
    return request(alternative_names(_WEB), version=b"\x02")


def acme_client_of_ruby() -> bytes:
    """As acme-client 2.0 for Ruby: version 2, and a common name."""
    return request(alternative_names(_WEB), version=b"\x02", name=_WEB_SUBJECT)


def acme_sh(*values: str | tuple[int, bytes]) -> bytes:
    """As acme.sh for an IP address: an organization, because a common name is no address."""
    return request(
        _SERVER_AND_CLIENT,
        alternative_names(*values),
        name=subject((ORGANIZATION, UTF8, b"acme.sh")),
    )


def crypt_le() -> bytes:
    """As Crypt::LE: an address of the subject, in a PrintableString."""
    return request(
        alternative_names(_WEB),
        name=subject(
            ("2.5.4.8", PRINTABLE, b"State"),
            (ORGANIZATION, PRINTABLE, b"Organization"),
            ("2.5.4.6", PRINTABLE, b"US"),
            ("2.5.4.7", PRINTABLE, b"City"),
            (COMMON_NAME, PRINTABLE, _WEB.encode()),
        ),
    )


def openssl() -> bytes:
    """As `openssl req` of OpenSSL 3 with its example configuration, every question answered."""
    name = subject(
        ("2.5.4.6", PRINTABLE, b"AU"),
        ("2.5.4.8", UTF8, b"Some-State"),
        (ORGANIZATION, UTF8, b"Internet Widgits Pty Ltd"),
        (COMMON_NAME, UTF8, _WEB.encode()),
        (EMAIL_ADDRESS, IA5, b"admin@example.com"),
    )
    attributes = in_order(
        requested(_NO_CA, _KEY_USAGE, alternative_names(_WEB)),
        text_attribute(UNSTRUCTURED_NAME, b"Example"),
        text_attribute(CHALLENGE_PASSWORD, b"secret"),
    )
    return sign(info(attributes, name=name))
