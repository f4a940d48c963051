"""The form of what a CA returns: certificates in PEM, and each in DER."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import SignatureAlgorithmOID as Algorithm

from kms.pki.parsing import PARSER_ERRORS
from kms.pki.returned.base import Rejected

MAXIMUM_CERTIFICATES: Final = 10
MAXIMUM_SIZE: Final = 128 * 1024

_BEGIN = b"-----BEGIN "
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_HASHES = frozenset({"sha256", "sha384", "sha512", "sha3-256", "sha3-384", "sha3-512"})
_WITHOUT_HASH = frozenset({Algorithm.ED25519, Algorithm.ED448})


def read_certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in PEM, each in strict DER. Text between the blocks is ignored (RFC 7468, 2).

    Raises Rejected (Unreadable).
    """
    if len(pem) > MAXIMUM_SIZE:
        raise _unreadable(f"The CA returned {len(pem)} bytes; {MAXIMUM_SIZE} are accepted.")
    blocks = _BLOCK.findall(pem)
    if not blocks or len(blocks) != pem.count(_BEGIN):
        raise _unreadable("The CA returned something other than blocks CERTIFICATE in PEM without headers.")
    if len(blocks) > MAXIMUM_CERTIFICATES:
        raise _unreadable(f"The CA returned {len(blocks)} certificates; {MAXIMUM_CERTIFICATES} are accepted.")
    return tuple(_certificate(number, block) for number, block in enumerate(blocks, 1))


def _certificate(number: int, block: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(b"".join(block.split()), validate=True))
        # cryptography reads these parts only when they are accessed.
        certificate.subject, certificate.issuer, certificate.public_key()
        if number == 1:  # CAs may have extensions that cryptography does not read
            certificate.extensions  # noqa: B018
    except (binascii.Error, *PARSER_ERRORS):
        raise _unreadable(f"Certificate {number} of those that the CA returned is not X.509 in strict DER.") from None
    return certificate


def has_weak_signature(certificate: x509.Certificate) -> bool:
    """Whether the signature uses something other than SHA-2, SHA-3 or EdDSA."""
    if certificate.signature_algorithm_oid in _WITHOUT_HASH:
        return False
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return True
    return algorithm is None or algorithm.name not in _HASHES


def _unreadable(message: str) -> Rejected:
    return Rejected("Unreadable", message)
