"""What signs, the result of issuing, and the error of a CA that cannot sign now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509

from kms.pki.certificate import LeafTemplate, Signer, chain_pem
from kms.pki.crl import ListTemplate
from kms.pki.keys import fingerprint


@dataclass(frozen=True, slots=True)
class Issued:
    """A signed certificate: its chain in PEM, and its validity.

    Serial number, identifier of the CA's key (empty: none) and digest of its own key are in hexadecimal.
    """

    chain: str
    serial_number: str
    authority_key_id: str
    public_key_digest: str
    not_before: datetime
    not_after: datetime


class Issuer(Protocol):
    """A CA that signs at once: its key is in memory, or in a key store that answers within seconds."""

    @property
    def not_after(self) -> datetime:
        """The end of the first certificate in the CA's chain to expire."""
        ...

    @property
    def signs_lists(self) -> bool:
        """Whether the key usage of the CA's certificate allows it to sign revocation lists."""
        ...

    async def sign(self, template: LeafTemplate) -> Issued:
        """Sign. Raises ValueError for an invalid template, and IssuerNotReady if the key cannot be used now."""
        ...

    async def revocation_list(self, template: ListTemplate) -> bytes:
        """Sign a revocation list, in DER. Raises IssuerNotReady if the key cannot be used now."""
        ...


def issued(leaf: x509.Certificate, template: LeafTemplate, signer: Signer) -> Issued:
    """A certificate that `signer` has signed for `template`, with its chain."""
    return Issued(
        chain=chain_pem(leaf, signer),
        serial_number=f"{leaf.serial_number:x}",
        authority_key_id=(signer.authority_key_identifier.key_identifier or b"").hex(),
        public_key_digest=fingerprint(template.public_key),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
    )


class IssuerNotReady(Exception):
    """The CA cannot sign now; the message says why. Clients get 503 and try again."""
