"""The structure of requests and certificates in strict DER, for what the classes of cryptography.x509 do not show.

Each field has the name that it has in its RFC. Fields of type TLV are whole elements that are not looked into.
"""

from __future__ import annotations

from typing import Annotated

from cryptography import x509
from cryptography.hazmat import asn1


@asn1.sequence
class SubjectAttribute:
    """An attribute of a distinguished name (RFC 5280, 4.1.2.4)."""

    type: x509.ObjectIdentifier
    value: asn1.TLV


@asn1.sequence
class Attribute:
    """An attribute of a request (RFC 2986, 4.1)."""

    type: x509.ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class CertificationRequestInfo:
    """The part of a request that is signed (RFC 2986, 4.1)."""

    version: int
    subject: list[asn1.SetOf[SubjectAttribute]]
    public_key: asn1.TLV
    attributes: Annotated[asn1.SetOf[Attribute], asn1.Implicit(0)]


@asn1.sequence
class _CertificationRequest:
    info: CertificationRequestInfo
    signature_algorithm: asn1.TLV
    signature: asn1.BitString


@asn1.sequence
class _Extension:
    id: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(value=False)]
    value: bytes


@asn1.sequence
class TBSCertificate:
    """The part of a certificate of version 3 that is signed (RFC 5280, 4.1), without unique identifiers."""

    version: Annotated[int, asn1.Explicit(0)]
    serial_number: asn1.TLV
    signature: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    public_key: asn1.TLV
    extensions: Annotated[list[_Extension], asn1.Explicit(3)]


def request_info(der: bytes) -> CertificationRequestInfo:
    """The signed part of a request. Raises ValueError if it is not strict DER."""
    return asn1.decode_der(_CertificationRequest, der).info


def tbs_certificate(certificate: x509.Certificate) -> TBSCertificate:
    """The signed part of a certificate. Raises ValueError if it is not strict DER of version 3 with extensions."""
    return asn1.decode_der(TBSCertificate, certificate.tbs_certificate_bytes)
