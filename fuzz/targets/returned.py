"""What another CA returns for a certificate request."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from fuzz.target import Target
from kms.pki.ca import AuthorityTemplate, intermediate, self_signed
from kms.pki.certificate import LeafTemplate, Signer
from kms.pki.csr import parse_request
from kms.pki.keys import generate_key
from kms.pki.names import dns_name
from kms.pki.returned import Expected, Rejected, check_returned
from kms.pki.returned.form import MAXIMUM_SIZE
from kms.resources.compile import compile_policy
from kms.resources.meta import ObjectMeta
from kms.resources.policies import CertificatePolicy, PolicySpec

NOW = datetime(2026, 11, 25, tzinfo=UTC)
BETWEEN = b"\n=====\n"
"""Separates certificates in DER in an input that does not begin with PEM."""

_KEYS = tuple(generate_key("ECDSA", 256) for _ in range(3))
_TEMPLATE = AuthorityTemplate(
    common_name="Root", serial=1, not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=90)
)
ROOT = Signer(self_signed(_TEMPLATE, _KEYS[0]), _KEYS[0])
ISSUING = Signer(intermediate(replace(_TEMPLATE, common_name="Issuing", serial=2), _KEYS[1], ROOT), _KEYS[1])
_NAME = dns_name("www.example.com")
_CSR = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([]))
    .add_extension(x509.SubjectAlternativeName([x509.DNSName(_NAME.value)]), critical=False)
    .sign(_KEYS[2], hashes.SHA256())
)
_REQUEST = parse_request(_CSR.public_bytes(Encoding.DER))
_EXPECTED = Expected(
    request=_REQUEST,
    names=_REQUEST.names,
    usages=frozenset({"digital signature", "server auth"}),
    subject={},
    policy=compile_policy(CertificatePolicy(metadata=ObjectMeta(namespace="pki", name="web"), spec=PolicySpec())),
    duration=timedelta(days=30),
    accepted=NOW,
)
LEAF = LeafTemplate(
    public_key=_REQUEST.public_key,
    names=(_NAME,),
    common_name=_NAME.value,
    subject={},
    usages=_EXPECTED.usages,
    serial=2**126,
    not_before=NOW,
    not_after=NOW + timedelta(days=30),
)
"""An end entity's certificate that is accepted."""


def read(data: bytes) -> None:
    """Check the certificates in PEM, or those in DER after they were encoded."""
    pem = data if data.startswith(b"-----") else b"".join(map(_pem, data.split(BETWEEN)))
    try:
        returned = check_returned(pem, _EXPECTED, anchors=[ROOT.certificate], now=NOW)
    except Rejected as rejected:
        if not str(rejected).isprintable():
            raise AssertionError("the message has more than one line") from rejected
        raise
    if returned.issuers[-1] != ROOT.certificate or returned.not_after > _TEMPLATE.not_after:
        raise AssertionError("the certificate is not below the trust anchor")


def _pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


TARGET = Target(read, (Rejected,), longest=MAXIMUM_SIZE + 1)
