"""Issuers that take time: external CAs, from the request to the answer.

What is asked for follows from the order alone, so any replica can go on where another one has died, and two that race
ask for the same thing under the same name.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kms.issuers.base import Issued
from kms.pki.returned import ReturnedCertificate
from kms.resources.meta import Key

_NAME_LENGTH: Final = 40
"""Characters of base32, five bits each: more than SHA-256 needs against collisions."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What is asked of a CA for one attempt of an order.

    `name` is that of the request (`request_name`), `order` (namespace, name) of the ACMEOrder. `request` is the
    client's CSR in DER. `not_after` is set where the client asked for that very end.
    """

    name: str
    order: Key
    order_uid: str
    attempt: int
    request: bytes
    usages: tuple[str, ...]
    duration: timedelta
    not_after: datetime | None = None

    @property
    def pem(self) -> bytes:
        """The CSR in PEM."""
        return x509.load_der_x509_csr(self.request).public_bytes(Encoding.PEM)


WaitingReason: TypeAlias = Literal[
    "WaitingForApproval", "WaitingForIssuer", "Forbidden", "IssuerNotReady", "AuthenticationFailed"
]
"""What an order waits for, as the reason of its condition Ready."""


@dataclass(frozen=True, slots=True)
class Pending:
    """There is no answer yet, and asking again would not help. The messages here may have the CA's own words."""

    reason: WaitingReason
    message: str


@dataclass(frozen=True, slots=True)
class Returned:
    """What the CA returned, in PEM: a claim that nobody has checked (kms.pki.returned)."""

    pem: bytes


@dataclass(frozen=True, slots=True)
class Denied:
    """Those who approve requests decided against this one."""

    message: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The CA does not sign this request, because of what it contains."""

    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The CA failed. `is_final`: another attempt would fail too."""

    message: str
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The CA could not be asked. `is_ambiguous`: it may have signed all the same, and nobody has the certificate."""

    message: str
    is_ambiguous: bool = False


Answer: TypeAlias = Pending | Returned | Denied | Refused | Failed | Unavailable


class RemoteIssuer(Protocol):
    """A CA that signs somewhere else. No method but `revoke` raises for what the CA or the network does."""

    async def begin(self, submission: Submission) -> None:
        """Ask the CA. Asking again for the same submission changes nothing where the CA can tell."""
        ...

    async def look(self, submission: Submission) -> Answer:
        """The answer so far. A request that somebody has deleted is made again under its name."""
        ...

    async def forget(self, submission: Submission) -> None:
        """Remove the request. Its certificate, if there is one, stays valid."""
        ...

    async def revoke(self, certificate: bytes) -> bool:
        """Revoke a certificate in DER; False if this kind of CA takes no revocations. Again is no error.

        Raises IssuerNotReady if the CA cannot be asked, or has not confirmed it.
        """
        ...

    async def close(self) -> None:
        """Give up connections. The issuer is not used any more."""
        ...


def request_name(*, uid: str, digest: str, attempt: int) -> str:
    """The name of the request: the same on every replica for an order, a CSR and an attempt.

    `uid` is that of the order and `digest` that of the CSR. The result is a DNS label.
    """
    material = hashlib.sha256(f"{uid}\0{digest}\0{attempt}".encode()).digest()
    return f"kms-{base64.b32encode(material).decode().lower()[:_NAME_LENGTH]}"


def issued_by(certificate: ReturnedCertificate) -> Issued:
    """A certificate that was checked, as orders store it."""
    return Issued(
        chain=certificate.chain,
        serial_number=certificate.serial_number,
        authority_key_id=certificate.authority_key_id,
        public_key_digest=certificate.public_key_digest,
        not_before=certificate.not_before,
        not_after=certificate.not_after,
    )
