"""Files with the certificates of CAs in PEM: read, or told what is wrong with which certificate."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import chain

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kms.pki.extensions import UnreadableCertificate, find_extension, flaw_of
from kms.pki.parsing import PARSER_ERRORS

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----([^-]*)-----END ")
_LABELS = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE"})
LARGEST = 32 * 1024
"""Octets of a certificate in PEM, as many as the status of a CertificateAuthority takes."""
_LONGEST_SUBJECT, _LONGEST_NUMBER = 8192, 64
"""Characters of the subject, and octets of serial number and key identifier, likewise."""
_USED = (x509.BasicConstraints, x509.KeyUsage, x509.SubjectKeyIdentifier, x509.NameConstraints, x509.ExtendedKeyUsage)


def read_chain(pem: bytes) -> list[x509.Certificate]:
    """The certificates in a file whose size the caller has limited. At least one.

    The parts that we use can be read in all of them, an extension that is not used need not be; and the status of a
    CertificateAuthority can hold them. Raises UnreadableCertificate with a clause that says which certificate is wrong,
    and how.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except PARSER_ERRORS:
        raise UnreadableCertificate(next(_flaws(pem), "it has a mistake that no certificate alone has")) from None
    for number, each in enumerate(certificates, 1):
        if flaw := next(chain(_unreadable_parts(each), _large_parts(each, is_own=number == 1)), None):
            raise UnreadableCertificate(f"certificate {number}: {flaw}")
    return certificates


def _flaws(pem: bytes) -> Iterator[str]:
    blocks: list[tuple[bytes, bytes]] = _BLOCK.findall(pem)
    texts = [text for label, text in blocks if label in _LABELS]
    if not texts:
        others = sorted({label.decode() for label, _ in blocks})
        yield "it has no block CERTIFICATE" + (f", but {', '.join(others)[:100]}" if others else "")
    for number, text in enumerate(texts, 1):
        try:
            der = base64.b64decode(b"".join(text.split()), validate=True)
        except binascii.Error:
            yield f"certificate {number}: its base64 is damaged"
            continue
        try:
            x509.load_der_x509_certificate(der)
        except PARSER_ERRORS:
            yield f"certificate {number}: {flaw_of(der)}"
    if pem.count(b"-----BEGIN CERTIFICATE-----") > len(texts):
        yield "a certificate has no end (-----END CERTIFICATE-----)"


def _unreadable_parts(certificate: x509.Certificate) -> Iterator[str]:
    # cryptography parses these parts only when they are accessed.
    try:
        certificate.public_key()
    except PARSER_ERRORS:
        yield "its public key cannot be read, or is of a kind that is not supported"
    for part in ("subject", "issuer"):
        try:
            getattr(certificate, part)
        except PARSER_ERRORS:
            yield f"its {part} has text in another encoding than it says, such as Latin-1 in a T61String"
    for type_ in _USED:
        try:
            find_extension(certificate, type_)
        except UnreadableCertificate as error:
            yield str(error)


def _large_parts(certificate: x509.Certificate, *, is_own: bool) -> Iterator[str]:
    """What the API server would refuse in a status, each time anew and without a word to the CA's owner."""
    if len(certificate.public_bytes(Encoding.PEM)) > LARGEST:
        yield f"it has more than {LARGEST} octets in PEM"
    if not is_own:
        return
    identifier = find_extension(certificate, x509.SubjectKeyIdentifier)
    if identifier is not None and len(identifier.digest) > _LONGEST_NUMBER:
        yield f"its subject key identifier has more than {_LONGEST_NUMBER} octets"
    if certificate.serial_number.bit_length() > 8 * _LONGEST_NUMBER:
        yield f"its serial number has more than {_LONGEST_NUMBER} octets"
    if len(certificate.subject.rfc4514_string()) > _LONGEST_SUBJECT:
        yield f"its subject has more than {_LONGEST_SUBJECT} characters"
