"""The certificates that this server has issued: a short record of each, in memory, found by issuer and serial number.

Clients and relying parties often ask when to renew a certificate, whether it is revoked, whether its key is
compromised. No such question may cost a call to the API server. A record takes about half a kilobyte, and eight octets
more for each further name.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from acme_server.model import Profile, parse_certificate_id
from acme_server.problems import Unavailable
from acme_server.state.index import Index, View
from acme_server.state.revocation_records import RevocationRecords, issuer_of
from kms.pki.crl import KEY_COMPROMISE
from kms.resources.meta import Key
from kms.resources.orders import ACMEOrder, Identifier, Revocation

_SERIAL_NUMBER = re.compile("[0-9a-f]{1,128}")
_DIGEST = 8
"""Octets of the digest of an identifier. It only tells which certificates of one account share a name."""
_RETRY_AFTER = 5
"""Seconds until a client should try again while the index is incomplete."""


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """What this server knows about a certificate without reading it.

    `order` is (namespace, name) of the ACMEOrder. `authority` is the CertificateAuthority that was asked for the
    certificate, if it is external. `serial_number` and `authority_key_id` (of the CA's key; empty: the
    certificate has none) are lowercase hexadecimal. `issuer` is what kms.pki.certificate.issuer_id says. `names` are
    digests of the identifiers, in their own order: clients decide how long those are and which comes first.
    """

    order: Key
    profile: str
    account: str
    serial_number: str
    authority_key_id: str
    issuer: str
    names: bytes
    not_before: datetime
    not_after: datetime
    issued_at: datetime
    revocation: Revocation | None
    authority: str | None = None

    def has_one_of(self, identifiers: Iterable[Identifier]) -> bool:
        """Whether the certificate has one of the identifiers."""
        own = {self.names[start : start + _DIGEST] for start in range(0, len(self.names), _DIGEST)}
        return any(_digest(each) in own for each in identifiers)

    @property
    def namespace(self) -> str:
        """The namespace of the order, its profile and the CA."""
        return self.order[0]


class Certificates(View[ACMEOrder]):
    """Records of all certificates, and of keys that must not be certified again.

    `on_revocation(namespace, authority_key_id)` is called whenever the revoked certificates of that CA key change.
    `records` know the keys of certificates whose order is gone.
    """

    def __init__(
        self,
        index: Index[ACMEOrder],
        *,
        records: RevocationRecords | None = None,
        on_revocation: Callable[[str, str], None] = lambda _namespace, _authority: None,
    ) -> None:
        super().__init__(index)
        self._records = records
        self._on_revocation = on_revocation
        self._by_order: dict[Key, CertificateRecord] = {}
        self._by_serial: dict[tuple[str, str, str], CertificateRecord] = {}
        self._latest: dict[tuple[str, str], CertificateRecord] = {}
        self._revoked: dict[tuple[str, str], dict[str, CertificateRecord]] = {}
        self._compromised: set[str] = set()
        self._unreadable: set[Key] = set()

    def __len__(self) -> int:
        return len(self._by_order)

    def records(self) -> Collection[CertificateRecord]:
        """All records: a view that must not be kept across an await."""
        return self._by_order.values()

    def is_complete(self, namespace: str) -> bool:
        """Whether every certificate of the namespace has its record. If not, one without a record may exist."""
        return self._index.complete and not any(each[0] == namespace for each in self._unreadable)

    def certificate(self, namespace: str, issuer: str, serial_number: str) -> CertificateRecord | None:
        """The certificate of that issuer with that serial number (lowercase hexadecimal without leading zeros).

        External CAs choose serial numbers themselves, and two may choose the same one.
        """
        return self._by_serial.get((namespace, issuer, serial_number))

    def find(self, profile: Profile, certificate_id: str) -> CertificateRecord | None:
        """The certificate of the profile with that identifier (RFC 9773, 4.1). Costs no request to the API server.

        Raises Refused (malformed) for a malformed identifier, and Unavailable while the index is incomplete.
        """
        wanted = parse_certificate_id(certificate_id)
        found = self.certificate(profile.namespace, *wanted)
        if found is not None and (found.authority_key_id, found.profile) == (wanted.authority_key_id, profile.name):
            return found
        if not self.is_complete(profile.namespace):
            raise Unavailable("The server is still reading its certificates.", _RETRY_AFTER)
        return None

    def latest_of(self, namespace: str, authority: str) -> CertificateRecord | None:
        """The certificate that the external CA of that name has issued last, as far as its order still exists."""
        return self._latest.get((namespace, authority))

    def find_revoked(self, namespace: str, authority_key_id: str) -> Collection[CertificateRecord]:
        """The revoked certificates that were signed with that CA key, including expired ones."""
        return self._revoked.get((namespace, authority_key_id), {}).values()

    def is_compromised(self, public_key_digest: str) -> bool:
        """Whether a certificate with that key was revoked because the key was compromised.

        Raises Unavailable before all orders and records have been read for the first time: a key that is not known
        then may be compromised.
        """
        if public_key_digest in self._compromised:
            return True
        if self._records is not None and self._records.is_compromised(public_key_digest):
            return True
        if not (self._index.loaded and (self._records is None or self._records.loaded)):
            raise Unavailable("The server is still reading which keys are compromised.", _RETRY_AFTER)
        return False

    def put(self, key: Key, order: ACMEOrder) -> None:
        """Record the certificate of the order."""
        self._unreadable.discard(key)
        record, earlier = _record(key, order), self._by_order.get(key)
        if record is None:
            self.remove(key)
            return
        self._by_order[key] = record
        self._by_serial[record.namespace, record.issuer, record.serial_number] = record
        if record.authority is not None:
            known = self._latest.get((record.namespace, record.authority))
            if known is None or known.issued_at <= record.issued_at:
                self._latest[record.namespace, record.authority] = record
        if record.revocation is None:
            return
        if record.revocation.reason == KEY_COMPROMISE:
            self._compromised.add(order.status.public_key_digest or "")
        self._revoked.setdefault((record.namespace, record.authority_key_id), {})[record.serial_number] = record
        if earlier is None or earlier.revocation != record.revocation:
            self._on_revocation(record.namespace, record.authority_key_id)

    def remove(self, key: Key) -> None:
        """Forget the certificate of the order. A compromised key remains known."""
        self._unreadable.discard(key)
        record = self._by_order.pop(key, None)
        if record is None:
            return
        self._by_serial.pop((record.namespace, record.issuer, record.serial_number), None)
        if record.authority is not None and self.latest_of(record.namespace, record.authority) is record:
            del self._latest[record.namespace, record.authority]
        if record.revocation is not None:
            self._revoked.get((record.namespace, record.authority_key_id), {}).pop(record.serial_number, None)
            self._on_revocation(record.namespace, record.authority_key_id)

    def obscure(self, key: Key) -> None:
        """Keep the record: what was revoked stays revoked. Without one, a revoked certificate may be unknown."""
        if key not in self._by_order:
            self._unreadable.add(key)


def _digest(identifier: Identifier) -> bytes:
    return hashlib.blake2b(f"{identifier.type}:{identifier.value}".encode(), digest_size=_DIGEST).digest()


def _record(key: Key, order: ACMEOrder) -> CertificateRecord | None:
    """The record of the order's certificate; None if it has none, or a serial number that no list can have."""
    spec, status = order.spec, order.status
    if status.serial_number is None or status.not_before is None or status.not_after is None:
        return None
    if _SERIAL_NUMBER.fullmatch(status.serial_number) is None:
        return None
    return CertificateRecord(
        order=key,
        profile=sys.intern(spec.profile_ref.name),
        account=sys.intern(spec.account_ref.name),
        serial_number=status.serial_number,
        authority_key_id=sys.intern(status.authority_key_id or ""),
        issuer=sys.intern(issuer_of(order)),
        names=b"".join(sorted(_digest(each) for each in spec.identifiers)),
        not_before=status.not_before,
        not_after=status.not_after,
        issued_at=status.issued_at or status.not_before,
        revocation=status.revocation,
        authority=sys.intern(status.authority.name) if status.authority is not None else None,
    )
