"""A CA of a company that signs requests of CAs, as people do it with openssl."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from kms.pki.ca import chain_to_root_pem
from kms.pki.certificate import Signer, certificate_pem
from tests.support.pki import DAY, NOW


def certify(
    request: str,
    signer: Signer,
    *,
    serial: int = 77,
    not_before: datetime = NOW - DAY,
    not_after: datetime = NOW + 89 * DAY,
    leave_out: Iterable[type[x509.ExtensionType]] = (),
    more: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> str:
    """The certificate for the request in PEM, with all of its extensions but some, and those above it."""
    asked = x509.load_pem_x509_csr(request.encode())
    builder = (
        x509.CertificateBuilder()
        .issuer_name(signer.certificate.subject)
        .subject_name(asked.subject)
        .public_key(asked.public_key())
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    for each in asked.extensions:
        if not isinstance(each.value, tuple(leave_out)):
            builder = builder.add_extension(each.value, each.critical)
    for value, critical in more:
        builder = builder.add_extension(value, critical)
    return certificate_pem(builder.sign(signer.key, hashes.SHA256())) + chain_to_root_pem(signer)
