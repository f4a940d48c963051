"""Cross certificates: other CAs certify a CA's key, so that chains lead to their roots too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from types import MappingProxyType

from cryptography import x509

from kms.pki.ca.chain_file import read_chain
from kms.pki.ca.errors import InvalidAuthority
from kms.pki.ca.imported import MAXIMUM_CHAIN, check_dates, check_is_authority
from kms.pki.ca.internal import remaining_path_length
from kms.pki.certificate import Signer, authority_key_identifier, certificate_pem, certifies, chain_for_clients
from kms.pki.extensions import UnreadableCertificate
from kms.pki.quoting import quoted

REASON = "InvalidCrossCertificate"

_PLAIN: Mapping[str, str] = MappingProxyType(
    {
        "NotACertificateAuthority": "does not let its key sign certificates; have it issued as that of a CA",
        "NotYetValid": "is not valid yet; wait, or check the clock",
        "Expired": "has expired; put a renewed one there, or remove the chain",
    }
)
"""The fault of one certificate in words, by the reason of an imported CA."""


@dataclass(frozen=True, slots=True)
class AlternateChain:
    """A chain from a CA to another root: the PEM for clients, and the end of its first certificate to expire."""

    pem: str
    not_after: datetime


def check_cross(pem: str, signer: Signer, *, now: datetime) -> AlternateChain:
    """The chain in `pem`, if it verifies certificates that `signer` has signed.

    The first certificate must have the key, the subject and the key identifier of the CA's own: clients find it by
    these. Raises InvalidAuthority with a sentence that names the fix, without the field.
    """
    chain = _certificates(pem)
    first, own = chain[0], signer.certificate
    if first.public_key() != own.public_key():
        raise _invalid(
            f"{_subject(first)} is not for the key of this CA; have this CA's key certified, and put that first"
        )
    if first.subject != own.subject:
        raise _invalid(f"it is for {_subject(first)}, but the CA is called {_subject(own)}; both must be the same")
    if authority_key_identifier(first) != signer.authority_key_identifier:
        raise _invalid("its subject key identifier is not that of the CA's own certificate, so clients do not find it")
    if first == own:
        raise _invalid("it is the CA's own certificate; leave it out")
    for certificate in chain:
        try:
            check_is_authority(certificate)
            check_dates(certificate, now)
        except InvalidAuthority as error:
            raise _invalid(f"{_subject(certificate)} {_PLAIN[error.reason]}") from None
    for lower, upper in pairwise(chain):
        if not certifies(upper, lower):
            raise _invalid(
                f"{_subject(lower)} is not issued by {_subject(upper)}, which follows it; put its issuer there"
            )
    remaining = remaining_path_length(Signer(first, signer.key, tuple(chain[1:])))
    if remaining is not None and remaining < 0:
        raise _invalid(f"a path length above {_subject(first)} does not allow it; clients would refuse the chain")
    return AlternateChain(
        pem="".join(map(certificate_pem, chain_for_clients(chain))),
        not_after=min(each.not_valid_after_utc for each in chain),
    )


def _certificates(pem: str) -> Sequence[x509.Certificate]:
    try:
        chain = read_chain(pem.encode())
    except UnreadableCertificate as error:
        raise _invalid(
            f"it cannot be read: {error}; it must hold X.509 certificates in PEM, that of this CA's key first"
        ) from None
    if len(chain) > MAXIMUM_CHAIN:
        raise _invalid(f"it holds {len(chain)} certificates; clients take no chain with more than {MAXIMUM_CHAIN}")
    return chain


def _invalid(why: str) -> InvalidAuthority:
    return InvalidAuthority(REASON, why.removesuffix("."))


def _subject(certificate: x509.Certificate) -> str:
    return quoted(certificate.subject.rfc4514_string())
