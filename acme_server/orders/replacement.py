"""Orders that replace a certificate (RFC 9773, 5): which certificate, and the name of the order. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from acme_server.model import Caller
from acme_server.orders.identifiers import identifier_of
from acme_server.orders.lifetimes import is_over
from acme_server.problems import ProblemType, Refused
from acme_server.state.certificates import CertificateRecord, Certificates
from kms.pki.names import Name
from kms.resources.orders import OPEN_STATES, ACMEOrder

_NAME_BYTES = 20


def find_predecessor(
    certificates: Certificates, caller: Caller, certificate_id: str, names: Sequence[Name]
) -> CertificateRecord:
    """The certificate that an order for `names` may replace.

    Raises Refused: malformed if the profile has not issued it or it shares no name with the order, unauthorized
    where it belongs to another account. Clients try again without `replaces`, so the details name that member.
    """
    certificate = certificates.find(caller.profile, certificate_id)
    if certificate is None:
        raise Refused(ProblemType.MALFORMED, "replaces: the profile has issued no certificate with that identifier.")
    if certificate.account != caller.account.metadata.name:
        raise Refused(ProblemType.UNAUTHORIZED, "replaces: the certificate belongs to another account.")
    if not certificate.has_one_of(map(identifier_of, names)):
        raise Refused(ProblemType.MALFORMED, "replaces: the certificate shares no name with this order.")
    return certificate


def already_replaced() -> Refused:
    """The refusal of a second order that replaces the same certificate (RFC 9773, 7.4)."""
    return Refused(ProblemType.ALREADY_REPLACED, "replaces: another order already replaces the certificate.")


def is_successor(existing: ACMEOrder, wanted: ACMEOrder, *, lifetime: timedelta, now: datetime) -> bool:
    """Whether the order under the name of a successor is one: of the same account, and for the same certificate.

    Users who may create ACMEOrders can take the name, and must not keep an account from renewing. So an order that is
    still open after the `lifetime` of orders is none, whatever its spec says: it is never issued.
    """
    own, other, created = wanted.spec, existing.spec, existing.metadata.creation_timestamp or now
    if existing.status.state in OPEN_STATES and is_over(created + lifetime, now=now):
        return False
    return (other.account_ref, other.profile_ref, other.replaces) == (own.account_ref, own.profile_ref, own.replaces)


def successor_name(predecessor: CertificateRecord, attempt: int) -> str:
    """The name of the order that replaces the certificate, or of the next one if that failed.

    It is the same on every replica, so etcd lets one order alone replace a certificate. It cannot be guessed
    without the name of the predecessor's order, which cannot be guessed either.
    """
    material = f"replaces\0{'/'.join(predecessor.order)}\0{predecessor.serial_number}\0{attempt}"
    return base64.b32encode(hashlib.sha256(material.encode()).digest()[:_NAME_BYTES]).decode().lower()
