"""The chains of a certificate: the stored one, and alternates that lead from the same leaf to other roots."""

from __future__ import annotations

import logging

from cryptography import x509

from acme_server.problems import Unavailable
from acme_server.state.chain_rules import leads_to
from kms.pki.certificate import certificate_pem
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.authorities import CertificateAuthority
from kms.resources.orders import ACMEOrder

logger = logging.getLogger(__name__)

_REPAIR = 30
"""Seconds until a client should try again while a person has to correct an order."""


def chains(order: ACMEOrder, default: str, authority: CertificateAuthority) -> tuple[str, ...]:
    """All chains of the certificate of the order in PEM, the `default` one first.

    The CA may have got another key or name since it signed the leaf, so an alternate counts only if it certifies the
    leaf. Raises Unavailable if the certificate cannot be read.
    """
    leaf = leaf_of(order, default)
    alternates = authority.status.alternate_chains
    if not alternates:
        return (default,)
    head = certificate_pem(leaf)
    return (default, *(head + each for each in alternates if leads_to(each, leaf)))


def leaf_of(order: ACMEOrder, chain: str) -> x509.Certificate:
    """The certificate in the `chain` (PEM) of the order. Raises Unavailable if somebody has damaged it."""
    try:
        return x509.load_pem_x509_certificate(chain.encode())
    except PARSER_ERRORS as error:
        named = f"{order.metadata.namespace}/{order.metadata.name}"
        logger.warning("certificate of an order cannot be read", extra={"order": named, "error": str(error)})
        raise Unavailable("The certificate of the order cannot be read.", _REPAIR) from error
