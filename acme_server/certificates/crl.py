"""CRLs (RFC 5280, 5) and certificates of CAs, for relying parties.

A CRL is signed when a client asks for it and the last one is out of date: a certificate was revoked since, or the hour
is over. So no CRL is older than an hour, and a revocation is published after a second. A long CRL takes a thread for
half a second, so the pause between two CRLs grows with their length. No request goes to the API server: revocations
come from the indexes of certificates and of RevocationRecords, keys and CAs from informers.

The list of a CA has the entries of all its keys: an imported CA may have had others before. A CA that was deleted has a
list until its last certificate has ended, also if another CA of the same name was created since: URLs name the key.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.certificates.deleted_authorities import deleted_authority, is_kept
from acme_server.certificates.revocation_reasons import hour_of, list_template
from acme_server.problems import NotFound, Unavailable
from acme_server.state.certificates import CertificateRecord, Certificates
from acme_server.state.revocation_records import RevocationRecords, RevokedCertificate
from kms.clock import Clock
from kms.cluster.informer import Informer
from kms.issuers import Issuer, IssuerNotReady, Issuers
from kms.pki.crl import ListTemplate
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.meta import Key

logger = logging.getLogger(__name__)

_COLD = 2
_NOT_READY = 10
_SHORTEST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=1), timedelta(seconds=5)
"""Between two CRLs of one CA while certificates are being revoked."""
_SHARE = 10
"""The pause is this many times as long as signing took: a tenth of the time goes into signing."""
_LOST_AFTER = 15.0
"""Seconds without a watch after which the index of certificates counts as incomplete."""


@dataclass(frozen=True, slots=True)
class DERFile:
    """A CRL or a certificate as HTTP serves it."""

    der: bytes
    etag: str
    last_modified: datetime

    @classmethod
    def of(cls, der: bytes, *, last_modified: datetime) -> DERFile:
        """The file with its entity tag, which follows from its bytes: all replicas have the same."""
        return cls(der, hashlib.sha256(der).hexdigest()[:32], last_modified)


class RevocationCounter:
    """Counts the changes to the revoked certificates of each CA key. The indexes of revocations call `increment`."""

    def __init__(self) -> None:
        self._counts: Counter[Key] = Counter()

    def increment(self, namespace: str, authority_key_id: str) -> None:
        """Count a change."""
        self._counts[namespace, authority_key_id] += 1

    def count(self, namespace: str, authority_key_id: str) -> int:
        """The changes so far."""
        return self._counts[namespace, authority_key_id]


@dataclass(frozen=True, slots=True)
class _CRL:
    """A CRL and what it was made from. It is not renewed before `until`, and not served after `ends`."""

    document: DERFile
    number: int
    this_update: datetime
    ends: datetime
    certificate: str
    changes: int
    hour: datetime
    until: datetime


class CRLs:
    """Keeps the current CRL of each CA that clients ask for.

    `outage_seconds` returns for how many seconds a watch of orders or RevocationRecords has been down. Meanwhile no CRL
    is signed, because it could lack a revocation. The last one is good for a day. `find_issuing` returns the
    certificate with which an external CA issues, if that is known; `recall_issuing` learns it after a restart.
    """

    def __init__(
        self,
        *,
        authorities: Informer[CertificateAuthority],
        secrets: Informer[Secret],
        certificates: Certificates,
        records: RevocationRecords,
        revocations: RevocationCounter,
        issuers: Issuers,
        outage_seconds: Callable[[], float],
        find_issuing: Callable[[CertificateAuthority], x509.Certificate | None],
        recall_issuing: Callable[[CertificateAuthority], Awaitable[None]],
        clock: Clock,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._authorities = authorities
        self._secrets = secrets
        self._certificates = certificates
        self._records = records
        self._revocations = revocations
        self._issuers = issuers
        self._outage_seconds = outage_seconds
        self._find_issuing = find_issuing
        self._recall_issuing = recall_issuing
        self._clock = clock
        self._timer = timer
        self._crls: dict[Key, dict[str | None, _CRL]] = {}
        self._locks: dict[Key, asyncio.Lock] = {}

    async def recall(self, namespace: str, authority: str) -> None:
        """Learn the certificate of an external CA, so that `ca_certificate` has it after a restart."""
        found = self._authorities.get(namespace, authority)
        if found is not None and found.spec.external is not None:
            await self._recall_issuing(found)

    def ca_certificate(self, namespace: str, authority: str, key_id: str | None = None) -> DERFile:
        """The certificate of the CA, which has the key with that identifier. Raises NotFound and Unavailable."""
        resource = self._authority(namespace, authority, key_id)
        if resource.spec.external is not None:
            return self._issuing_certificate(resource)
        if key_id not in {None, resource.status.subject_key_id}:
            raise NotFound(f"CertificateAuthority {namespace}/{authority} has another key now.")
        certificate = _certificate(resource)
        return DERFile.of(certificate.public_bytes(Encoding.DER), last_modified=certificate.not_valid_before_utc)

    def _issuing_certificate(self, authority: CertificateAuthority) -> DERFile:
        """The certificate of an external CA, as far as this server knows it."""
        found = self._find_issuing(authority)
        if found is None:
            name = f"{authority.metadata.namespace}/{authority.metadata.name}"
            raise NotFound(f"This server does not know which CA issues for CertificateAuthority {name}.")
        return DERFile.of(found.public_bytes(Encoding.DER), last_modified=found.not_valid_before_utc)

    async def current(self, namespace: str, authority: str, key_id: str | None = None) -> DERFile:
        """The current CRL of the CA that has, or had, the key with that identifier.

        None: of the present CA of that name, or else the one that was deleted last.

        Raises NotFound if there is no such CA or it may not sign CRLs, and Unavailable if the server does not know all
        certificates, or lacks the CA's key, and the last CRL has expired.
        """
        key = namespace, authority
        known = self._known(key, key_id)
        try:
            resource = self._authority(namespace, authority, key_id)
        except Unavailable:
            if known is None or self._authorities.unreadable(namespace, authority) is None:
                raise
            return self._keep(known, "the CertificateAuthority cannot be read").document
        if resource.spec.external is not None:
            raise NotFound(
                f"The key of CertificateAuthority {namespace}/{authority} is somebody else's: see its own CRL."
            )
        own = resource.status.subject_key_id
        known = self._known(key, own)
        if known is None or self._is_due(known, resource):
            async with self._locks.setdefault(key, asyncio.Lock()):
                known = self._known(key, own)
                if known is None or self._is_due(known, resource):
                    # An imported CA with another key goes on with the numbers of its former one.
                    before = known or next(filter(None, (self._known(key, each) for each in resource.key_ids)), None)
                    known = await self._renew(resource, before)
                    self._forget_unused(key)
        self._crls.setdefault(key, {}).update(dict.fromkeys((own, key_id, *resource.key_ids), known))
        return known.document

    def _forget_unused(self, key: Key) -> None:
        """Drop the lists of keys that neither the CA of that name nor a deleted one has."""
        found = self._authorities.get(*key)
        used = {None, *(found.key_ids if found is not None else ())}
        for key_id in self._crls.get(key, {}).keys() - used:
            if not is_kept(self._secrets, *key, key_id or ""):
                del self._crls[key][key_id]

    def _known(self, key: Key, key_id: str | None) -> _CRL | None:
        return self._crls.get(key, {}).get(key_id)

    def _authority(self, namespace: str, name: str, key_id: str | None) -> CertificateAuthority:
        if not (self._authorities.synced.is_set() and self._secrets.synced.is_set()):
            raise Unavailable("The server is still reading its configuration.", _COLD)
        found = self._authorities.get(namespace, name)
        if found is not None and key_id is None:
            return self._earlier(found) or found
        if found is not None and key_id in found.key_ids:
            return found
        if key_id is not None:
            kept = deleted_authority(self._secrets, namespace, name, key_id)
            if kept is not None:
                return kept
        if self._authorities.unreadable(namespace, name) is not None:
            raise Unavailable("The CertificateAuthority cannot be read.", _NOT_READY)
        if self._authorities.outage_seconds() or self._secrets.outage_seconds():
            raise Unavailable("The server's configuration may be out of date.", _COLD)
        if key_id is not None:
            raise NotFound(f"There is no CertificateAuthority {namespace}/{name} with that key.")
        deleted = deleted_authority(self._secrets, namespace, name)
        if deleted is not None:
            return deleted
        self._crls.pop((namespace, name), None)
        self._locks.pop((namespace, name), None)
        raise NotFound(f"There is no CertificateAuthority {namespace}/{name}.")

    def _earlier(self, authority: CertificateAuthority) -> CertificateAuthority | None:
        """The deleted CA of the same name, if this one was created again and has no certificate yet."""
        if authority.status.certificate is not None:
            return None
        earlier = deleted_authority(self._secrets, authority.metadata.namespace, authority.metadata.name)
        return earlier if earlier is not None and earlier.metadata.uid != authority.metadata.uid else None

    def _is_due(self, known: _CRL, authority: CertificateAuthority) -> bool:
        now = self._clock()
        if known.until - _LONGEST_PAUSE <= now < known.until:  # before that, the clock has been set back
            return False
        current = authority.status.certificate, self._changes(authority), hour_of(now)
        return (known.certificate, known.changes, known.hour) != current

    def _changes(self, authority: CertificateAuthority) -> int:
        namespace = authority.metadata.namespace
        return sum(self._revocations.count(namespace, each) for each in authority.key_ids)

    async def _renew(self, authority: CertificateAuthority, before: _CRL | None) -> _CRL:
        try:
            issuer = self._issuers.of(authority)
        except IssuerNotReady:
            return self._keep(before, "the key of the CA is missing")
        if not issuer.signs_lists:
            raise NotFound("This CA publishes no revocation list: the keyUsage of its certificate lacks cRLSign.")
        complete = self._certificates.is_complete(authority.metadata.namespace) and self._records.complete
        if not complete or self._outage_seconds() > _LOST_AFTER:
            return self._keep(before, "the server has not read all certificates")
        try:
            return await self._sign(authority, issuer, before)
        except IssuerNotReady as error:
            return self._keep(before, "the CA's key cannot be used now", error=str(error))

    def _keep(self, before: _CRL | None, why: str, *, error: str | None = None) -> _CRL:
        """Keep the last CRL for some seconds more. Raises Unavailable if there is none or it has expired.

        `error` is for the log only: it may name a key store.
        """
        now = self._clock()
        if before is None or before.ends <= now:
            raise Unavailable(f"There is no valid CRL: {why}.", _NOT_READY)
        logger.warning("CRL not renewed", extra={"error": error or why, "ends": before.ends.isoformat()})
        return replace(before, until=now + _LONGEST_PAUSE)

    async def _sign(self, authority: CertificateAuthority, issuer: Issuer, before: _CRL | None) -> _CRL:
        namespace = authority.metadata.namespace
        started, now = self._timer(), self._clock()
        changes = self._changes(authority)
        revoked: list[CertificateRecord | RevokedCertificate] = []
        for key_id in authority.key_ids:
            revoked += self._certificates.find_revoked(namespace, key_id)
            revoked += self._records.find_revoked(namespace, key_id)
        last = before.this_update if before is not None else None
        template = await asyncio.to_thread(list_template, revoked, now=now, not_before=last)
        if before is not None and template.number <= before.number:
            # Objects that were deleted by hand must not make the number go down.
            template = replace(template, number=before.number)
        document = await _document(issuer, template)
        if before is not None and template.number == before.number and await _differs(document, before.document):
            template = replace(template, number=before.number + 1)
            document = await _document(issuer, template)
        took = self._timer() - started
        logger.info(
            "CRL signed",
            extra={
                "authority": f"{namespace}/{authority.metadata.name}",
                "number": template.number,
                "entries": len(template.entries),
                "ms": round(took * 1000, 1),
            },
        )
        return _CRL(
            document=document,
            number=template.number,
            this_update=template.this_update,
            ends=template.next_update,
            certificate=authority.status.certificate or "",
            changes=changes,
            hour=hour_of(now),
            until=self._clock() + min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, timedelta(seconds=took * _SHARE))),
        )


async def _document(issuer: Issuer, template: ListTemplate) -> DERFile:
    der = await issuer.revocation_list(template)
    return await asyncio.to_thread(DERFile.of, der, last_modified=template.this_update)


async def _differs(one: DERFile, other: DERFile) -> bool:
    """Whether the contents differ. Signatures of a key store differ each time, and need no other number."""
    if one.etag == other.etag:
        return False
    contents = await asyncio.to_thread(lambda: [_signed_part(each.der) for each in (one, other)])
    return contents[0] != contents[1]


def _signed_part(der: bytes) -> bytes:
    return hashlib.sha256(x509.load_der_x509_crl(der).tbs_certlist_bytes).digest()


def _certificate(authority: CertificateAuthority) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate((authority.status.certificate or "").encode())
    except ValueError:
        raise Unavailable("The CA has no certificate yet.", _NOT_READY) from None
