"""Keys, CSRs and CAs for tests."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kms.pki.ca import AuthorityTemplate, NameConstraints, intermediate, self_signed
from kms.pki.certificate import LeafTemplate, Signer
from kms.pki.keys import PrivateKey, PublicKey, generate_key
from kms.pki.names import Name, dns_name

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@cache
def key(algorithm: str = "ECDSA", size: int | None = 256, which: str = "") -> PrivateKey:
    """A key, cached for the test run; `which` distinguishes keys of the same type."""
    return generate_key(algorithm, size)


def csr_builder(
    *names: str, common_name: str | None = None, extensions: Iterable[tuple[x509.ExtensionType, bool]] = ()
) -> x509.CertificateSigningRequestBuilder:
    """An unsigned CSR for DNS names and IP addresses."""
    subject = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(each) for each in names]), False)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder


def csr(
    *names: str,
    common_name: str | None = None,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    signed_with: PrivateKey | None = None,
) -> bytes:
    """A CSR in DER."""
    return signed(csr_builder(*names, common_name=common_name, extensions=extensions), signed_with or key())


def signed(builder: x509.CertificateSigningRequestBuilder, with_key: PrivateKey) -> bytes:
    """Sign a CSR with any type of key; the result in DER."""
    algorithm = None if isinstance(with_key, Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(with_key, algorithm).public_bytes(Encoding.DER)


def root(
    *,
    common_name: str = "Test Root",
    with_key: PrivateKey | None = None,
    not_before: datetime = NOW - DAY,
    not_after: datetime = NOW + 365 * DAY,
    path_length: int | None = None,
    serial: int = 1,
    constraints: NameConstraints | None = None,
) -> Signer:
    """A root CA with its key."""
    with_key = with_key or key(which="root")
    template = AuthorityTemplate(
        common_name=common_name,
        serial=serial,
        not_before=not_before,
        not_after=not_after,
        path_length=path_length,
        constraints=constraints,
    )
    return Signer(self_signed(template, with_key), with_key)


def below(
    signer: Signer,
    *,
    common_name: str = "Test Issuing CA",
    with_key: PrivateKey | None = None,
    not_before: datetime = NOW - DAY,
    not_after: datetime = NOW + 180 * DAY,
    path_length: int | None = None,
) -> Signer:
    """An intermediate CA below `signer`, with its key."""
    with_key = with_key or key(which=common_name)
    template = AuthorityTemplate(
        common_name=common_name, serial=2, not_before=not_before, not_after=not_after, path_length=path_length
    )
    certificate = intermediate(template, with_key, signer)
    return Signer(certificate, with_key, (signer.certificate, *signer.issuers))


def without_list_signing() -> Signer:
    """A CA with keyCertSign but without cRLSign, like some corporate CAs."""
    signer = root()
    usage = x509.KeyUsage(*(position == 5 for position in range(9)))
    builder = (
        x509.CertificateBuilder()
        .issuer_name(signer.certificate.subject)
        .subject_name(signer.certificate.subject)
        .public_key(signer.key.public_key())
        .serial_number(1)
        .not_valid_before(signer.certificate.not_valid_before_utc)
        .not_valid_after(signer.certificate.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    return Signer(builder.sign(signer.key, hashes.SHA256()), signer.key)


def leaf(
    *names: Name,
    public_key: PublicKey | None = None,
    common_name: str | None = None,
    subject: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    usages: Iterable[str] = ("digital signature", "key encipherment", "server auth"),
    serial: int = 2**126 + 7,
    not_before: datetime = NOW,
    not_after: datetime = NOW + 30 * DAY,
) -> LeafTemplate:
    """The template of a server certificate, by default for www.example.com."""
    return LeafTemplate(
        public_key=public_key or key().public_key(),
        names=names or (dns_name("www.example.com"),),
        common_name=common_name,
        subject=subject,
        usages=frozenset(usages),
        serial=serial,
        not_before=not_before,
        not_after=not_after,
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def vouched_for(revoked: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    """Whether the CRL is signed by the key of this certificate."""
    key = authority.public_key()
    assert isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey))
    return revoked.is_signature_valid(key)
