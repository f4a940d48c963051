"""The chain of an external CA, as its server tells it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from kms.pki.ca import InvalidAuthority
from kms.pki.ca.imported import check_dates, check_is_authority
from kms.pki.certificate import is_root
from kms.pki.extensions import UnreadableCertificate
from kms.pki.quoting import quoted
from kms.pki.returned.base import Rejected
from kms.pki.returned.form import read_certificates
from kms.pki.returned.path import find_path

INVALID_ANCHORS = "InvalidTrustAnchors"


def authority_chain(pem: bytes, anchors: Sequence[x509.Certificate], *, now: datetime) -> tuple[x509.Certificate, ...]:
    """The certificates of a CA in PEM, its own first, up to the trust anchor; without `anchors` up to its root.

    Raises InvalidAuthority with the reason NotACertificateAuthority, NotYetValid, Expired or InvalidTrustAnchors.
    """
    try:
        own, *others = read_certificates(pem)
        check_is_authority(own)
        check_dates(own, now)
        roots = anchors or tuple(each for each in (own, *others) if is_root(each))
        if own in roots:
            return (own,)
        if not roots:
            raise InvalidAuthority(
                INVALID_ANCHORS,
                f"The chain of {_subject(own)} has no self-signed certificate; set spec.external.trustAnchors to the"
                " certificates that clients trust, in PEM.",
            )
        return (own, *find_path(own, others, known=(), anchors=roots, names=(), now=now))
    except (Rejected, UnreadableCertificate) as error:
        raise InvalidAuthority(
            INVALID_ANCHORS, f"The chain of the CA does not lead to spec.external.trustAnchors: {error}"
        ) from None


def issuing_chain(
    pem: bytes, anchors: Sequence[x509.Certificate], *, known: Sequence[x509.Certificate], now: datetime
) -> tuple[x509.Certificate, ...]:
    """The certificates above the first one in PEM, up to a trust anchor; empty if there is no such chain now.

    Those that are missing are taken from `known`. Whether the first one fits anything is not checked.
    """
    try:
        leaf, *others = read_certificates(pem)
        return tuple(find_path(leaf, others, known=known, anchors=anchors, names=(), now=now))
    except (Rejected, UnreadableCertificate):
        return ()


def _subject(certificate: x509.Certificate) -> str:
    return quoted(certificate.subject.rfc4514_string())
