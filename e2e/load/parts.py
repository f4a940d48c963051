"""The parts of an order that need no server: check a CSR, build and sign a certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def check(der: bytes) -> frozenset[str]:
    """Parse a CSR, verify its signature and return its names.

    Raises:
        ValueError: if the signature does not verify.
    """
    request = x509.load_der_x509_csr(der)
    if not request.is_signature_valid:
        raise ValueError("the signature of the request does not verify")
    extension = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return frozenset(extension.value.get_values_for_type(x509.DNSName))


def leaf(issuer: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
    """Build and sign a certificate with the usual extensions of a server certificate."""
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Floor CA")]))
        .subject_name(x509.Name([]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("floor.load.test")]), critical=True)
        .sign(issuer, hashes.SHA256())
    )
