"""Extensions of certificates, each for itself.

cryptography reads all extensions of a certificate or none. CAs have certificates with an extension that it does not
know how to read, next to those that matter here; OpenSSL and Go read these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kms.pki.der import (
    BIT_STRING,
    BOOLEAN,
    INTEGER,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    SET,
    MalformedDER,
    Reader,
    encode,
)
from kms.pki.extension_names import extension_name
from kms.pki.parsing import PARSER_ERRORS

E = TypeVar("E", bound=x509.ExtensionType)

_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_FIELDS: Final = ("the signature algorithm", "the issuer", "the validity", "the subject", "the public key")
_UNIQUE_IDENTIFIERS: Final = (0x81, 0x82)
_READ_VERSIONS: Final = (b"\x00", b"\x02")
_KEY: Final = encode(SEQUENCE, encode(SEQUENCE, b"\x06\x03\x2b\x65\x70"), encode(BIT_STRING, b"\0" * 33))
_EXTENSION_REQUEST: Final = bytes.fromhex("06092a864886f70d01090e")


class UnreadableCertificate(ValueError):
    """A certificate that cannot be used; the message is a clause that says what is wrong."""


class _RawExtension(NamedTuple):
    oid: str
    identifier: bytes
    value: bytes


def find_extension(certificate: x509.Certificate, type_: type[E]) -> E | None:
    """The value of the extension of this type; None if the certificate has none. Others need not be readable.

    Raises UnreadableCertificate if the extension itself cannot be read, or if one occurs twice.
    """
    try:
        return certificate.extensions.get_extension_for_class(type_).value
    except x509.ExtensionNotFound:
        return None
    except PARSER_ERRORS:
        return _find_alone(certificate, type_)


def flaw_of(der: bytes) -> str:
    """Why cryptography does not read a certificate that it refuses, as a clause for people."""
    try:
        extensions = list(_raw_extensions(der, strict=True))
        _check_unique(extensions)
    except (MalformedDER, UnreadableCertificate) as error:
        return str(error)
    return "its DER has a mistake that OpenSSL and Go may tolerate"


def _find_alone(certificate: x509.Certificate, type_: type[E]) -> E | None:
    try:
        extensions = list(_raw_extensions(certificate.public_bytes(Encoding.DER)))
    except MalformedDER as error:
        raise UnreadableCertificate(str(error)) from None
    _check_unique(extensions)
    raw = next((each for each in extensions if each.oid == type_.oid.dotted_string), None)
    if raw is None:
        return None
    try:
        # A request may contain one extension alone, so the library reads it without the others.
        return x509.load_der_x509_csr(_carrier(raw)).extensions.get_extension_for_class(type_).value
    except PARSER_ERRORS:
        raise UnreadableCertificate(f"extension {extension_name(raw.oid)} cannot be read") from None


def _check_unique(extensions: list[_RawExtension]) -> None:
    oids = [each.oid for each in extensions]
    for oid in oids:
        if oids.count(oid) > 1:
            raise UnreadableCertificate(f"extension {extension_name(oid)} occurs twice")


def _raw_extensions(der: bytes, *, strict: bool = False) -> Iterator[_RawExtension]:
    """The extensions of a certificate (RFC 5280, 4.1).

    Raises MalformedDER, and if `strict` UnreadableCertificate for what cryptography alone does not take.
    """
    outermost = Reader(der, "the certificate")
    certificate = outermost.enter(SEQUENCE, "the certificate")
    outermost.finish()
    body = certificate.enter(SEQUENCE, "the part that is signed")
    if (version := body.expect_if(_VERSION, "the version")) is not None and strict:
        _check_version(body.inside(version, "the version"))
    body.expect(INTEGER, "the serial number")
    for field in _FIELDS:
        body.expect(SEQUENCE, field)
    for tag in _UNIQUE_IDENTIFIERS:
        body.expect_if(tag, "a unique identifier")
    extensions = body.expect_if(_EXTENSIONS, "the list of extensions")
    body.finish()
    if extensions is None:
        return
    around = body.inside(extensions, "the list of extensions")
    listed = around.enter(SEQUENCE, "the list of extensions")
    around.finish()
    while listed.more():
        yield _raw_extension(listed.enter(SEQUENCE, "an extension"), strict=strict)


def _raw_extension(extension: Reader, *, strict: bool) -> _RawExtension:
    identifier = extension.encoded(extension.expect(OBJECT_IDENTIFIER, "the type of an extension"))
    oid = Reader(identifier, "the type of an extension").object_identifier("the type of an extension")
    critical = extension.expect_if(BOOLEAN, f"critical of extension {oid}")
    if strict and critical is not None and not any(extension.content(critical)):
        raise UnreadableCertificate(
            f"critical of extension {extension_name(oid)} is spelt out as FALSE, which DER does not allow"
        )
    value = extension.content(extension.expect(OCTET_STRING, f"the value of extension {oid}"))
    extension.finish()
    return _RawExtension(oid, identifier, value)


def _check_version(version: Reader) -> None:
    number = version.content(version.expect(INTEGER, "the version"))
    if number not in _READ_VERSIONS:
        raise UnreadableCertificate(f"it is of version {int.from_bytes(number[:8], 'big') + 1}, and not 3")


def _carrier(extension: _RawExtension) -> bytes:
    """A certificate request, without a signature, for nothing but the extension."""
    one = encode(SEQUENCE, extension.identifier, encode(OCTET_STRING, extension.value))
    attribute = encode(SEQUENCE, _EXTENSION_REQUEST, encode(SET, encode(SEQUENCE, one)))
    info = encode(SEQUENCE, encode(INTEGER, b"\0"), encode(SEQUENCE), _KEY, encode(0xA0, attribute))
    return encode(SEQUENCE, info, encode(SEQUENCE, b"\x06\x03\x2b\x65\x70"), encode(BIT_STRING, b"\0"))
