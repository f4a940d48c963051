"""The result of issuing, and the error of a CA that cannot sign now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


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


class IssuerNotReady(Exception):
    """The CA cannot sign now; the message says why. Clients get 503 and try again."""
