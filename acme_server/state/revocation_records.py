"""Revocations that outlive their order, account, profile and namespace: the RevocationRecords that this replica knows.

The name of a record follows from what it says, so replicas that record the same revocation write one object. Records
never change: a reason that is raised to keyCompromise is a second record.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from cryptography import x509

from acme_server.problems import Unavailable
from acme_server.state import retention
from acme_server.state.index import Index, View
from acme_server.state.weight import weigh_record
from kms.pki.certificate import issuer_id
from kms.pki.crl import KEY_COMPROMISE
from kms.pki.parsing import PARSER_ERRORS
from kms.resources.accounts import ACMEAccount
from kms.resources.meta import Key, ObjectMeta
from kms.resources.orders import ACMEOrder, Revocation
from kms.resources.revocations import (
    AccountRevocation,
    CertificateRevocation,
    RevocationRecord,
    RevocationRecordSpec,
)
from kms.shares import HALF, share_of, with_reserve

MAXIMUM_OCTETS = 96 * 2**20
"""What all records may take in etcd; in memory they take less than half."""
_RETRY_AFTER = 5
"""Seconds until a client should try again before the records have been read."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RevokedCertificate:
    """An entry of a revocation list. `authority` is the namespace of the CA and the identifier of its key."""

    authority: tuple[str, str]
    serial_number: str
    public_key_digest: str | None
    not_after: datetime
    revocation: Revocation
    octets: int = 0


@dataclass(frozen=True, slots=True)
class _BlockedKeys:
    """The keys of an account that is not valid any more."""

    profile: Key
    thumbprints: tuple[str, ...]
    octets: int


def certificate_record(order: ACMEOrder, namespace: str) -> RevocationRecord | None:
    """The record, in this namespace, of the order's revocation; None if its certificate is not revoked."""
    status, revocation = order.status, order.status.revocation
    if revocation is None or status.serial_number is None or status.not_after is None:
        return None
    where, authority_key_id = order.metadata.namespace, status.authority_key_id or ""
    return RevocationRecord(
        metadata=ObjectMeta(
            namespace=namespace,
            name=_certificate_name(where, issuer_of(order), status.serial_number, revocation.reason),
        ),
        spec=RevocationRecordSpec(
            namespace=where,
            profile=order.spec.profile_ref.name,
            until=retention.certificate_kept_until(status.not_after, revocation),
            certificate=CertificateRevocation(
                authority_key_id=authority_key_id,
                serial_number=status.serial_number,
                public_key_digest=status.public_key_digest,
                not_after=status.not_after,
                time=revocation.time,
                reason=revocation.reason,
            ),
        ),
    )


def account_record(account: ACMEAccount, namespace: str, *, until: datetime) -> RevocationRecord | None:
    """The record, in this namespace, of the keys of an account; None unless it is closed for good."""
    state = account.status.state
    if state is None or state == "valid" or state == "suspended":  # noqa: PLR1714 - narrows the type
        return None
    thumbprints = dict.fromkeys((account.spec.thumbprint, *account.status.former_keys, account.thumbprint))
    return RevocationRecord(
        metadata=ObjectMeta(namespace=namespace, name=_account_name(account)),
        spec=RevocationRecordSpec(
            namespace=account.metadata.namespace,
            profile=account.spec.profile_ref.name,
            until=until,
            account=AccountRevocation(state=state, thumbprints=tuple(thumbprints)),
        ),
    )


def issuer_of(order: ACMEOrder) -> str:
    """Who has issued the certificate of the order: the identifier of the CA's key, or else what its name says.

    Empty if the certificate cannot be read.
    """
    if order.status.authority_key_id:
        return order.status.authority_key_id
    try:
        return issuer_id(x509.load_pem_x509_certificate((order.status.certificate or "").encode()))
    except PARSER_ERRORS:
        return ""


def _certificate_name(namespace: str, issuer: str, serial_number: str, reason: str) -> str:
    kind = "compromised" if reason == KEY_COMPROMISE else "revoked"
    digest = hashlib.sha256(f"{namespace}\0{issuer}\0{serial_number}".encode()).digest()
    return f"{kind}-{base64.b32encode(digest).decode().rstrip('=').lower()}"


def _account_name(account: ACMEAccount) -> str:
    # Names of accounts are unique in the cluster: they are made of namespace, profile and key.
    return f"account-{account.metadata.name}"


class RevocationRecords(View[RevocationRecord]):
    """All records. `on_revocation(namespace, authority_key_id)` is called when the entries of that CA key change.

    Records outlive orders, and so the limits of orders. They may have `maximum_octets`, and those about one namespace
    the share `namespace_share` (0 to 1) of what the others leave.
    """

    def __init__(
        self,
        index: Index[RevocationRecord],
        *,
        on_revocation: Callable[[str, str], None] = lambda _namespace, _authority: None,
        maximum_octets: int = MAXIMUM_OCTETS,
        namespace_share: float = HALF,
    ) -> None:
        super().__init__(index)
        self._on_revocation = on_revocation
        self._maximum_octets = maximum_octets
        self._namespace_share = namespace_share
        self._octets: Counter[str] = Counter()
        self._all_octets = 0
        self._entries: dict[str, RevokedCertificate | _BlockedKeys] = {}
        self._revoked: dict[tuple[str, str], dict[str, RevokedCertificate]] = {}
        self._compromised: Counter[str] = Counter()
        self._blocked: Counter[tuple[Key, str]] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def complete(self) -> bool:
        """Whether every record is known."""
        return self._index.complete

    @property
    def loaded(self) -> bool:
        """Whether every record has been read once."""
        return self._index.loaded

    def has_room(self, namespace: str, octets: int = 1, *, urgent: bool = False) -> bool:
        """Whether one more record about that namespace may be stored; an urgent one may use the reserve."""
        own = self._octets[namespace]
        share = share_of(self._maximum_octets, self._all_octets - own, self._namespace_share)
        return own + octets <= (with_reserve(share) if urgent else share)

    def find_revoked(self, namespace: str, authority_key_id: str) -> Collection[RevokedCertificate]:
        """The revoked certificates that were signed with that CA key. One may be there twice: with a raised reason."""
        return self._revoked.get((namespace, authority_key_id), {}).values()

    def is_compromised(self, public_key_digest: str) -> bool:
        """Whether a certificate with that key was revoked because the key was compromised."""
        return public_key_digest in self._compromised

    def is_blocked(self, profile: Key, thumbprint: str) -> bool:
        """Whether it is a key of an account of the profile that was deactivated or revoked.

        Raises Unavailable before all records have been read for the first time, unless it is known to be one.
        """
        if (profile, thumbprint) in self._blocked:
            return True
        if not self.loaded:
            raise Unavailable("The server is still reading which keys are blocked.", _RETRY_AFTER)
        return False

    def holds(self, name: str) -> bool:
        """Whether there is a record of that name."""
        return name in self._entries

    def put(self, key: Key, record: RevocationRecord) -> None:
        """Take in the record."""
        self.remove(key)
        spec, octets = record.spec, weigh_record(record)
        if spec.certificate is not None:
            revoked = spec.certificate
            authority = sys.intern(spec.namespace), sys.intern(revoked.authority_key_id)
            entry = RevokedCertificate(
                authority=authority,
                serial_number=revoked.serial_number,
                public_key_digest=revoked.public_key_digest if revoked.reason == KEY_COMPROMISE else None,
                not_after=revoked.not_after,
                revocation=Revocation(time=revoked.time, reason=sys.intern(revoked.reason)),
                octets=octets,
            )
            self._count(authority[0], octets)
            self._entries[key[1]] = entry
            self._revoked.setdefault(authority, {})[key[1]] = entry
            if entry.public_key_digest is not None:
                self._compromised[entry.public_key_digest] += 1
            self._on_revocation(*authority)
        elif spec.account is not None:
            profile = sys.intern(spec.namespace), sys.intern(spec.profile)
            self._entries[key[1]] = _BlockedKeys(profile, spec.account.thumbprints, octets)
            self._count(profile[0], octets)
            self._blocked.update((profile, each) for each in spec.account.thumbprints)

    def remove(self, key: Key) -> None:
        """Forget the record."""
        match self._entries.pop(key[1], None):
            case RevokedCertificate() as entry:
                self._count(entry.authority[0], -entry.octets)
                del self._revoked[entry.authority][key[1]]
                if not self._revoked[entry.authority]:
                    del self._revoked[entry.authority]
                if entry.public_key_digest is not None:
                    _decrement(self._compromised, entry.public_key_digest)
                self._on_revocation(*entry.authority)
            case _BlockedKeys(profile, thumbprints, octets):
                self._count(profile[0], -octets)
                for each in thumbprints:
                    _decrement(self._blocked, (profile, each))

    def _count(self, namespace: str, octets: int) -> None:
        self._all_octets += octets
        self._octets[namespace] += octets
        if not self._octets[namespace]:
            del self._octets[namespace]

    def obscure(self, key: Key) -> None:
        """Keep the record: what was revoked stays revoked. A record never changes, so it was readable before."""


def _decrement(counter: Counter[T], key: T) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
