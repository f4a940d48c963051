"""The chains of a certificate: the stored one, and alternates that lead from the same leaf to other roots."""

from __future__ import annotations

from cryptography import x509

from kms.pki.certificate import certificate_pem, certifies
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.authorities import CertificateAuthority
from kms.resources.orders import ACMEOrder


def chains(order: ACMEOrder, authority: CertificateAuthority) -> tuple[str, ...]:
    """All chains in PEM, the default one first; none where there is no certificate.

    The CA may have got another key or name since it signed the leaf, so an alternate counts only if it certifies the
    leaf.
    """
    default = order.status.certificate
    if default is None:
        return ()
    alternates = authority.status.alternate_chains
    if not alternates:
        return (default,)
    leaf = x509.load_pem_x509_certificate(default.encode())
    head = certificate_pem(leaf)
    return (default, *(head + each for each in alternates if _leads_to(each, leaf)))


def _leads_to(chain: str, leaf: x509.Certificate) -> bool:
    """Whether the chain begins with the issuer of the leaf. One that cannot be read does not."""
    try:
        return certifies(x509.load_pem_x509_certificate(chain.encode()), leaf)
    except PARSER_ERRORS:
        return False
