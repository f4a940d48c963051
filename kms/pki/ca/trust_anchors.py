"""Trust anchors of external CAs: certificates that chains must lead to, as people write them in a resource."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from kms.pki.ca.chain_file import read_chain
from kms.pki.ca.errors import InvalidAuthority
from kms.pki.ca.imported import missing_rights
from kms.pki.extensions import UnreadableCertificate
from kms.pki.quoting import quoted

REASON = "InvalidTrustAnchors"
FIELD = "spec.external.trustAnchors"
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """Those that are valid now, in their order; at least one. `flaws` say why others are not, for people."""

    valid: tuple[x509.Certificate, ...]
    flaws: tuple[str, ...] = ()

    @property
    def until(self) -> datetime:
        """When the first of them ends."""
        return min(each.not_valid_after_utc for each in self.valid)


def check_trust_anchors(pems: Sequence[str], *, now: datetime) -> TrustAnchors:
    """Read trust anchors, one certificate (PEM) each.

    Anchors that have ended, or have not begun, are left out as long as another one is valid. Raises InvalidAuthority
    (InvalidTrustAnchors) for what is no certificate, for more than one in one entry, for certificates that are none of
    CAs, and if none is valid.
    """
    valid: list[x509.Certificate] = []
    flaws: list[str] = []
    for position, pem in enumerate(pems):
        where = f"{FIELD}[{position}]"
        certificate = _read(pem, where)
        if flaw := _not_valid(certificate, now):
            flaws.append(f"{where}: {flaw}")
        else:
            valid.append(certificate)
    if not valid:
        raise InvalidAuthority(REASON, "; ".join(flaws) or f"{FIELD} is empty; write the root certificate (PEM)")
    return TrustAnchors(tuple(dict.fromkeys(valid)), tuple(flaws))


def _read(pem: str, where: str) -> x509.Certificate:
    try:
        certificates = read_chain(pem.encode())
        missing = next(missing_rights(certificates[0]), None)
    except UnreadableCertificate as error:
        raise InvalidAuthority(REASON, f"{where} cannot be read: {error}; write one certificate in PEM") from None
    if missing is not None:
        subject = quoted(certificates[0].subject.rfc4514_string())
        raise InvalidAuthority(
            REASON, f"{where}: {subject} is not the certificate of a CA: {missing}; write the root of the CA"
        )
    if len(certificates) > 1:
        raise InvalidAuthority(
            REASON, f"{where} has {len(certificates)} certificates; write each as an entry of its own"
        )
    return certificates[0]


def _not_valid(certificate: x509.Certificate, now: datetime) -> str | None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begin <= now < end:
        return None
    subject = quoted(certificate.subject.rfc4514_string())
    if now < begin:
        return f"{subject} is valid only from {begin:{_TIME}} on"
    return f"{subject} ended at {end:{_TIME}}; write the CA's present root, and remove this one"
