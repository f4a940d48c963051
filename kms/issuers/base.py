"""What every issuing CA can do, whatever its type."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from kms.pki.certificate import LeafTemplate
from kms.pki.crl import ListTemplate


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that has been signed: its chain in PEM, and when it is valid.

    In hexadecimal: its serial number, the identifier of the CA's key (empty: it has none), the digest of its own key.
    """

    chain: str
    serial_number: str
    authority_key_id: str
    public_key_digest: str
    not_before: datetime
    not_after: datetime


class IssuerNotReady(Exception):
    """The CA cannot sign now, and may soon: the message says why. Becomes 503."""


class Issuer(Protocol):
    """A CA that signs."""

    @property
    def not_after(self) -> datetime:
        """When the CA, or one above it, ends: nothing that it signs may be valid for longer."""
        ...

    @property
    def signs_lists(self) -> bool:
        """Whether the CA may sign revocation lists."""
        ...

    async def sign(self, template: LeafTemplate) -> Issued:
        """Sign. Raises IssuerNotReady, and ValueError for a template that must not be signed."""
        ...

    async def revocation_list(self, template: ListTemplate) -> bytes:
        """Sign a revocation list: DER. Raises IssuerNotReady."""
        ...
