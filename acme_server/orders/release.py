"""From what a CA returned to the certificate of an order: asked again, checked, stored. Nothing else is handed out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.audit.log import decisions
from acme_server.metrics import Metrics
from acme_server.model import Profile
from acme_server.orders.certificate_storage import CertificateStorage
from acme_server.orders.claims import CLAIMED
from acme_server.orders.issuance_admission import IssuanceAdmission
from acme_server.orders.issuing_chains import IssuingChains
from acme_server.orders.submission import certificates_in, end_of, expected_of, known_chain, trust_anchors
from acme_server.problems import Refused, Unavailable
from acme_server.state.store import Store, Vanished
from acme_server.tasks import in_thread_if_large
from kms.clock import Clock
from kms.issuers import IssuerNotReady
from kms.issuers.protocol import RemoteIssuer, Submission, issued_by
from kms.issuers.remote import authority_type
from kms.pki.returned import Rejected, ReturnedCertificate, check_returned, read_certificates
from kms.resources.authorities import CertificateAuthority
from kms.resources.certificate_chains import split_chain
from kms.resources.meta import key_of
from kms.resources.orders import ACMEOrder, AuthorityType, Issuance

logger = logging.getLogger(__name__)

_LARGE: Final = 8_192
"""Octets that a CA returned beyond which they are checked in a thread: two or three certificates are shorter."""
_FEW: Final = 6
"""Certificates that may be in the chain up to which no thread is needed: any of them may have to verify another one."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of an order: by which profile, whom it asks, and for what. `directory` is where it was ordered."""

    order: ACMEOrder
    issuance: Issuance
    directory: Profile
    profile: Profile
    issuer: RemoteIssuer
    submission: Submission

    @property
    def type(self) -> AuthorityType:
        """The type of the CA."""
        found = authority_type(self.profile.authority)
        if found is None:
            raise ValueError("the profile has no external CA")
        return found


class Release:
    """Stores certificates that external CAs have returned. `chains` learn from them who issues."""

    def __init__(
        self,
        *,
        orders: Store[ACMEOrder],
        storage: CertificateStorage,
        admission: IssuanceAdmission,
        chains: IssuingChains,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._orders = orders
        self._storage = storage
        self._admission = admission
        self._clock = clock
        self._metrics = metrics
        self._chains = chains

    def end_of(self, authority: CertificateAuthority) -> datetime | None:
        """When the CA ends, as far as that is known."""
        return end_of(self._chains.get(authority)) or authority.status.not_after

    def find_issuing(self, authority: CertificateAuthority) -> x509.Certificate | None:
        """The certificate with which the CA issues, if that is known: by what it has issued, or by what it says."""
        known = self._chains.get(authority)
        if known:
            return known[0]
        said = known_chain(authority) if authority_type(authority) in CLAIMED else ()
        return said[0] if said else None

    async def store(self, attempt: Attempt, pem: bytes) -> Rejected | None:
        """Check what the CA returned, and store it unless the order has ended. Returns why it is rejected.

        A certificate that is not stored is revoked, where the CA takes revocations. Raises Refused if the order must
        not have a certificate any more, and Unavailable.
        """
        try:
            returned = await self._check(attempt, pem)
        except Refused:
            await self._discard(attempt, pem)
            raise
        except Rejected as rejected:
            extra = {"order": attempt.order.metadata.name, "rule": rejected.rule, "error": str(rejected)}
            logger.warning("certificate rejected", extra=extra | {"authority": attempt.profile.authority.metadata.name})
            self._metrics.count_issuer_attempt(attempt.type, "rejected")
            await self._discard(attempt, pem)
            return rejected
        self._chains.put(attempt.profile.authority, returned.issuers)
        try:
            is_stored = await self._store(attempt, returned)
        except Vanished:
            await self._discard(attempt, pem)
            raise
        if not is_stored:
            await self._discard(attempt, pem)
        return None

    async def _check(self, attempt: Attempt, pem: bytes) -> ReturnedCertificate:
        """Whether the account still may have the certificate, then the certificate itself."""
        profile, request = await self._admission.readmit(attempt.directory, attempt.order)
        authority, now = attempt.profile.authority, self._clock()
        anchors, known = trust_anchors(authority), self._chains.get(authority) or known_chain(authority)
        check = partial(
            check_returned,
            expected=expected_of(attempt.order, request, profile, attempt.submission, now=now),
            anchors=anchors,
            known=known,
            now=now,
        )
        is_few = pem.count(b"-----BEGIN ") + len(anchors) + len(known) <= _FEW
        return await in_thread_if_large(check, pem, size=len(pem), limit=_LARGE if is_few else 0)

    async def _store(self, attempt: Attempt, returned: ReturnedCertificate) -> bool:
        """Write the certificate, and return whether it is that of the order now."""
        order, now = attempt.order, self._clock()
        try:
            finished = await self._storage.store(
                order, digest=order.status.csr_digest or "", certificate=issued_by(returned), now=now
            )
        except Refused:  # the order has ended meanwhile
            return False
        if split_chain(finished.status.certificate or "")[0] != split_chain(returned.chain)[0]:
            return False  # another replica was faster
        if returned.shortened:
            self._metrics.count_issuer_attempt(attempt.type, "shortened")
        self._metrics.count_order("valid", order.profile_key)
        self._metrics.observe_issuance("signed", seconds_since_accepted(order, now), issuer=attempt.type)
        decisions.info(
            "certificate issued",
            extra={
                "order": finished.metadata.name,
                "profile": "/".join(attempt.profile.key),
                "account": finished.spec.account_ref.name,
                "names": ",".join(each.value for each in finished.spec.identifiers),
                "serial": finished.status.serial_number,
                "authority": attempt.profile.authority.metadata.name,
                "attempt": attempt.issuance.attempt,
                "shortened": returned.shortened,
            },
        )
        return True

    async def _discard(self, attempt: Attempt, pem: bytes) -> None:
        """Revoke a certificate that nobody gets, where the CA takes revocations by itself.

        One with another key than the request is not what the CA made of it, and may be somebody's. And the order may
        have this very certificate: the answer to the write was lost, or this replica has an older version of it.
        """
        if attempt.type not in CLAIMED:
            return
        try:
            leaf = await in_thread_if_large(leaf_for, (pem, attempt.submission.request), size=len(pem), limit=_LARGE)
            if leaf is None or await self._has(attempt.order, leaf):
                return
            await attempt.issuer.revoke(leaf.public_bytes(Encoding.DER))
        except (Rejected, Unavailable, IssuerNotReady) as error:
            extra = {"order": attempt.order.metadata.name, "error": str(error)}
            logger.warning("a certificate that was discarded is not revoked", extra=extra)

    async def _has(self, order: ACMEOrder, leaf: x509.Certificate) -> bool:
        """Whether the order has this certificate. Raises Unavailable."""
        found = await self._orders.read_live(*key_of(order))
        if found is None or found.metadata.uid != order.metadata.uid or found.status.certificate is None:
            return False
        return leaf in certificates_in(found.status.certificate)[:1]


def leaf_for(returned: tuple[bytes, bytes]) -> x509.Certificate | None:
    """The first certificate of what was returned in PEM, for a request in DER; None if it has another key.

    Raises Rejected if it cannot be read.
    """
    pem, request = returned
    leaf = read_certificates(pem)[0]
    return leaf if leaf.public_key() == x509.load_der_x509_csr(request).public_key() else None


def seconds_since_accepted(order: ACMEOrder, now: datetime) -> float:
    """How long the order has been processing."""
    return 0.0 if order.status.accepted is None else max(0.0, (now - order.status.accepted).total_seconds())
