"""The certificates that are out: a little of each, in memory, found by serial number without a call to the API server.

What is asked about certificates (when to renew them, whether they were revoked, whether their key was compromised) is
asked often, by many, and partly by anybody. So this keeps a record of every order that
has a certificate, filled by a survey once the watch has begun and kept by the watch: about half a kilobyte each.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from acme_server.state.cache import Key
from kms.cluster.resource_version import newer
from kms.pki.crl import KEY_COMPROMISE
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder, Identifier, Revocation

_REMEMBERED = 10_000
"""Orders that went last: an older version of them that arrives late is not taken for a new order."""


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """What is known of one certificate without looking into it.

    `order` is (namespace, name) of the ACMEOrder. `serial_number` and `authority_key_id` (of the CA's key) are
    lowercase hexadecimal.
    """

    order: Key
    version: str
    profile: str
    account: str
    serial_number: str
    authority_key_id: str
    identifiers: tuple[Identifier, ...]
    not_before: datetime
    not_after: datetime
    issued_at: datetime
    revocation: Revocation | None

    @property
    def namespace(self) -> str:
        """Where the order, its profile and the CA are."""
        return self.order[0]


class Certificates:
    """Records of all certificates, and of keys that must not be certified again.

    `on_revocation` is called with namespace and authority key identifier whenever what is revoked there changes.
    """

    def __init__(self, *, on_revocation: Callable[[str, str], None] = lambda _namespace, _authority: None) -> None:
        self._on_revocation = on_revocation
        self._by_order: dict[Key, CertificateRecord] = {}
        self._by_serial: dict[tuple[str, str], CertificateRecord] = {}
        self._revoked: dict[tuple[str, str], dict[str, CertificateRecord]] = {}
        self._compromised: set[str] = set()
        self._unconfirmed: set[Key] = set()
        self._gone: OrderedDict[Key, str] = OrderedDict()
        self.complete = False
        """Whether every certificate that there is has its record: while not, absence of one means nothing."""

    def __len__(self) -> int:
        return len(self._by_order)

    def certificate(self, namespace: str, serial_number: str) -> CertificateRecord | None:
        """The certificate with that serial number (lowercase hexadecimal without leading zeros)."""
        return self._by_serial.get((namespace, serial_number))

    def revoked(self, namespace: str, authority_key_id: str) -> Collection[CertificateRecord]:
        """The certificates signed with that key of a CA that were revoked, also those that have expired since."""
        return self._revoked.get((namespace, authority_key_id), {}).values()

    def is_compromised(self, public_key_digest: str) -> bool:
        """Whether a certificate with that key was revoked because the key was compromised."""
        return public_key_digest in self._compromised

    def seen(self, order: ACMEOrder, deleted: bool) -> None:  # noqa: FBT001 - the signature of the store's listeners
        """Take note of an order in this version, or of its end."""
        key, version = key_of(order), order.metadata.resource_version
        self._unconfirmed.discard(key)
        if deleted:
            self._gone[key] = version
            while len(self._gone) > _REMEMBERED:
                self._gone.popitem(last=False)
            self._forget(key)
            return
        gone = self._gone.get(key)
        if gone is not None and not newer(version, gone):
            return
        known = self._by_order.get(key)
        if known is not None and not newer(version, known.version):
            return
        found = _record(order)
        if found is not None:
            if found.revocation is not None and found.revocation.reason == KEY_COMPROMISE:
                self._compromised.add(order.status.public_key_digest or "")
            self._put(found, known)

    def missed(self) -> None:
        """Changes may have been missed: what the next survey does not confirm is gone."""
        self.complete = False
        self._unconfirmed = set(self._by_order)

    def surveyed(self) -> None:
        """Every order that there is has been seen."""
        for key in self._unconfirmed:
            self._forget(key)
        self._unconfirmed = set()
        self.complete = True

    def _put(self, found: CertificateRecord, known: CertificateRecord | None) -> None:
        self._by_order[found.order] = found
        self._by_serial[found.namespace, found.serial_number] = found
        if found.revocation is None:
            return
        self._revoked.setdefault((found.namespace, found.authority_key_id), {})[found.serial_number] = found
        if known is None or known.revocation != found.revocation:
            self._on_revocation(found.namespace, found.authority_key_id)

    def _forget(self, key: Key) -> None:
        known = self._by_order.pop(key, None)
        if known is None:
            return
        self._by_serial.pop((known.namespace, known.serial_number), None)
        if known.revocation is not None:
            self._revoked.get((known.namespace, known.authority_key_id), {}).pop(known.serial_number, None)
            self._on_revocation(known.namespace, known.authority_key_id)


def _record(order: ACMEOrder) -> CertificateRecord | None:
    """What is kept of an order; None where it has no certificate."""
    spec, status = order.spec, order.status
    if status.serial_number is None or status.not_before is None or status.not_after is None:
        return None
    return CertificateRecord(
        order=key_of(order),
        version=order.metadata.resource_version,
        profile=sys.intern(spec.profile_ref.name),
        account=sys.intern(spec.account_ref.name),
        serial_number=status.serial_number,
        authority_key_id=sys.intern(status.authority_key_id or ""),
        identifiers=spec.identifiers,
        not_before=status.not_before,
        not_after=status.not_after,
        issued_at=status.issued_at or status.not_before,
        revocation=status.revocation,
    )
