"""The checks of what a CA returns, in their order. The first failure ends them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from kms.pki.certificate import certificate_pem
from kms.pki.extensions import find_extension
from kms.pki.keys import fingerprint
from kms.pki.returned.base import Expected, Rejected
from kms.pki.returned.form import read_certificates
from kms.pki.returned.leaf import check_contents, check_dates, is_shortened
from kms.pki.returned.path import find_path


@dataclass(frozen=True, slots=True)
class ReturnedCertificate:
    """A certificate that may be stored and handed out.

    `chain` is PEM for clients: the certificate and those above it without the trust anchor. `issuers` are all verified
    certificates above it, the anchor last. Serial number, identifier of the CA's key (empty: none) and digest of the
    certificate's key are in hexadecimal. `shortened`: the CA gave less time than it was asked for.
    """

    chain: str
    issuers: tuple[x509.Certificate, ...]
    serial_number: str
    authority_key_id: str
    public_key_digest: str
    not_before: datetime
    not_after: datetime
    shortened: bool


def check_returned(
    pem: bytes,
    expected: Expected,
    *,
    anchors: Sequence[x509.Certificate],
    known: Sequence[x509.Certificate] = (),
    now: datetime,
) -> ReturnedCertificate:
    """What the CA returned, if all of it is as expected.

    The chain must end at one of the `anchors`. `known` are certificates of the CA that it may leave out. Raises
    Rejected, with the rule OutlivesAuthority only if nothing else is wrong: a shorter duration may help then.
    """
    leaf, *others = read_certificates(pem)
    check_contents(leaf, expected)
    check_dates(leaf, expected, now=now)
    issuers = find_path(leaf, others, known=known, anchors=anchors, names=sorted(expected.names), now=now)
    _check_outlives(leaf, issuers)
    public_key = expected.request.public_key
    authority = find_extension(leaf, x509.AuthorityKeyIdentifier)
    return ReturnedCertificate(
        chain="".join(map(certificate_pem, (leaf, *_for_clients(issuers)))),
        issuers=issuers,
        serial_number=f"{leaf.serial_number:x}",
        authority_key_id="" if authority is None else (authority.key_identifier or b"").hex(),
        public_key_digest=fingerprint(public_key),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        shortened=is_shortened(leaf, expected),
    )


def _check_outlives(leaf: x509.Certificate, issuers: Sequence[x509.Certificate]) -> None:
    ends = min(each.not_valid_after_utc for each in issuers)
    if leaf.not_valid_after_utc > ends:
        raise Rejected(
            "OutlivesAuthority",
            f"The certificate ends at {leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}, after a certificate above it"
            f" ({ends:%Y-%m-%dT%H:%M:%SZ}).",
            ends=ends,
        )


def _for_clients(issuers: Sequence[x509.Certificate]) -> Sequence[x509.Certificate]:
    """Those above the certificate without the trust anchor, which clients have.

    If there are no others, it is included, because certbot rejects a chain of one certificate.
    """
    return issuers[:-1] or issuers
