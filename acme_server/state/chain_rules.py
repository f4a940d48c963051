"""When an order refers to the chain of its certificate, and how long a chain is kept. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from kms.clock import later
from kms.pki.certificate import certificate_pem, certifies, chain_for_clients
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.authorities import CertificateAuthority
from kms.resources.certificate_chains import split_chain

AFTER_EXPIRY = timedelta(days=2)
"""How long a chain is kept after its first certificate has expired: longer than the orders that refer to it."""


@dataclass(frozen=True, slots=True)
class ChainLimits:
    """How many chains a namespace may have, and octets of all; a namespace may use half of what the others leave."""

    chains: int = 64
    octets: int = 16 * 2**20


def end_of_chain(certificates: str) -> datetime | None:
    """When the first certificate of the chain ends, which has issued others; None if it cannot be read."""
    try:
        return _first(certificates).not_valid_after_utc
    except PARSER_ERRORS:
        return None


def may_refer(chain_ends: datetime | None, certificate_ends: datetime, *, now: datetime) -> bool:
    """Whether an order may refer to the chain: no order that refers to it is needed once its issuer has expired.

    So no new order can come to refer to a chain that may be deleted.
    """
    return chain_ends is not None and now < chain_ends and certificate_ends <= chain_ends


def has_outlived_its_use(chain_ends: datetime | None, *, now: datetime) -> bool:
    """Whether a chain may be deleted to which no order refers: it has ended some time ago.

    A chain that cannot be read may always be deleted: no client can use it.
    """
    return chain_ends is None or now > later(chain_ends, AFTER_EXPIRY)


def client_chains(authority: CertificateAuthority) -> Iterator[str]:
    """The chains, in PEM, that may follow what the CA issues now."""
    status = authority.status
    for text in filter(None, (status.chain, status.certificate)):
        yield text
        try:
            certificates = x509.load_pem_x509_certificates(text.encode())
        except PARSER_ERRORS:
            continue
        for each in (chain_for_clients(certificates), certificates[:-1]):
            yield "".join(map(certificate_pem, each))
    yield from status.alternate_chains


def leads_to(chain: str, leaf: x509.Certificate) -> bool:
    """Whether the chain begins with the issuer of the certificate. One that cannot be read does not."""
    try:
        return certifies(_first(chain), leaf)
    except PARSER_ERRORS:
        return False


def best_chain(chains: Iterable[str], leaf: x509.Certificate) -> str | None:
    """The chain that begins with the issuer of the certificate; None: there is none.

    A CA that was renewed with its key has several: of these, the one whose first certificate ends last.
    """
    found = [each for each in chains if leads_to(each, leaf)]
    return max(found, key=lambda each: _first(each).not_valid_after_utc, default=None)


def _first(certificates: str) -> x509.Certificate:
    """The first certificate. The parser would read all others too, and a namespace has many long chains."""
    return x509.load_pem_x509_certificate(split_chain(certificates)[0].encode())
