"""What CAs publish for those who check certificates: revocation lists (RFC 5280, 5), and their own certificates.

A list is made when somebody asks for it and the one at hand will not do: something was revoked since, or the hour is
over. So none is older than an hour, and a revocation is out a second later. A long list takes half a second of a
thread, which is why the pause between two grows with it. Nothing is asked of the API server: what is revoked stands in
the inventory, keys and CAs in their informers.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_server.certificates.revocation_reasons import hour_of, list_template
from acme_server.problems import NotFound, Unavailable
from acme_server.state.certificates import Certificates
from kms.clock import Clock
from kms.cluster.informer import Informer
from kms.issuers import Issuer, IssuerNotReady, Issuers
from kms.pki.crl import ListTemplate
from kms.resources.authorities import CertificateAuthority

logger = logging.getLogger(__name__)

_COLD = 2
_NOT_READY = 10
_SHORTEST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=1), timedelta(seconds=5)
"""Between two lists of one CA while things are being revoked: out within ten seconds all the same."""
_SHARE = 10
"""What part of the time goes into the lists of a CA: one tenth, unless they take longer than half a second."""
_LOST_AFTER = 15.0
"""Seconds without a watch after which the inventory is not taken for complete."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Document:
    """What is served to anybody: DER, its entity tag, and since when it is so."""

    der: bytes
    tag: str
    since: datetime

    @classmethod
    def of(cls, der: bytes, *, since: datetime) -> Document:
        """The document with its tag, which follows from its bytes: replicas agree on it."""
        return cls(der, hashlib.sha256(der).hexdigest()[:32], since)


class Changes:
    """Counts how often what is revoked with each key of a CA has changed; `note` is what the inventory calls."""

    def __init__(self) -> None:
        self._counts: Counter[Key] = Counter()

    def note(self, namespace: str, authority_key_id: str) -> None:
        """Something has changed."""
        self._counts[namespace, authority_key_id] += 1

    def count(self, namespace: str, authority_key_id: str) -> int:
        """How often it has changed so far."""
        return self._counts[namespace, authority_key_id]


@dataclass(frozen=True, slots=True)
class _List:
    """A list, and what it was made from; no other is made before `until`, and none may be served after `ends`."""

    document: Document
    number: int
    ends: datetime
    certificate: str
    changes: int
    hour: datetime
    until: datetime


class Publication:
    """Keeps the current list of each CA that is asked for.

    `interrupted` tells for how many seconds changes of orders have not been heard of: meanwhile no list is made, since
    it would claim to know what it does not; the last one is good for a day.
    """

    def __init__(
        self,
        *,
        authorities: Informer[CertificateAuthority],
        certificates: Certificates,
        changes: Changes,
        issuers: Issuers,
        interrupted: Callable[[], float],
        clock: Clock,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._authorities = authorities
        self._certificates = certificates
        self._changes = changes
        self._issuers = issuers
        self._interrupted = interrupted
        self._clock = clock
        self._timer = timer
        self._lists: dict[Key, _List] = {}
        self._making: dict[Key, asyncio.Lock] = {}

    def certificate(self, namespace: str, authority: str) -> Document:
        """The certificate of the CA. Raises NotFound and Unavailable."""
        certificate = _certificate(self._authority(namespace, authority))
        return Document.of(certificate.public_bytes(Encoding.DER), since=certificate.not_valid_before_utc)

    async def revocation_list(self, namespace: str, authority: str) -> Document:
        """The list of what the CA has revoked, as it is now.

        Raises NotFound where there is no such CA or it may not sign lists, and Unavailable where there is no list
        that can be relied on: the inventory is not complete, or the key is not there, and the last list has ended.
        """
        resource = self._authority(namespace, authority)
        key = namespace, authority
        known = self._lists.get(key)
        if known is None or self._is_due(known, resource):
            async with self._making.setdefault(key, asyncio.Lock()):
                known = self._lists.get(key)
                if known is None or self._is_due(known, resource):
                    known = self._lists[key] = await self._made(resource, known)
        return known.document

    def _authority(self, namespace: str, name: str) -> CertificateAuthority:
        if not self._authorities.synced.is_set():
            raise Unavailable("The server is still reading its configuration.", _COLD)
        found = self._authorities.get(namespace, name)
        if found is not None:
            return found
        if self._authorities.interrupted():
            raise Unavailable("The server has lost sight of its configuration.", _COLD)
        self._lists.pop((namespace, name), None)
        self._making.pop((namespace, name), None)
        raise NotFound(f"There is no CertificateAuthority {namespace}/{name}.")

    def _is_due(self, known: _List, authority: CertificateAuthority) -> bool:
        now = self._clock()
        if now < known.until:
            return False
        changes = self._changes.count(authority.metadata.namespace, authority.status.subject_key_id or "")
        current = authority.status.certificate, changes, hour_of(now)
        return (known.certificate, known.changes, known.hour) != current

    async def _made(self, authority: CertificateAuthority, before: _List | None) -> _List:
        try:
            issuer = self._issuers.of(authority)
        except IssuerNotReady:
            return self._kept(before, "the key of the CA is not there")
        if not issuer.signs_lists:
            raise NotFound("This CA publishes no revocation list: the keyUsage of its certificate lacks cRLSign.")
        if not self._certificates.complete or self._interrupted() > _LOST_AFTER:
            return self._kept(before, "the server does not know of every certificate yet")
        return await self._signed(authority, issuer, before)

    def _kept(self, before: _List | None, why: str) -> _List:
        """The last list, while it can be relied on, for some seconds more. Raises Unavailable."""
        now = self._clock()
        if before is None or before.ends <= now:
            raise Unavailable(f"There is no revocation list now: {why}.", _NOT_READY)
        logger.warning("revocation list is not renewed", extra={"error": why, "ends": before.ends.isoformat()})
        return replace(before, until=now + _LONGEST_PAUSE)

    async def _signed(self, authority: CertificateAuthority, issuer: Issuer, before: _List | None) -> _List:
        namespace, key_id = authority.metadata.namespace, authority.status.subject_key_id or ""
        started, now = self._timer(), self._clock()
        changes = self._changes.count(namespace, key_id)
        revoked = tuple(self._certificates.revoked(namespace, key_id))
        template = await asyncio.to_thread(list_template, revoked, now=now)
        if before is not None and template.number <= before.number:
            # Orders that were deleted would make it go back.
            template = replace(template, number=before.number)
        document = await _document(issuer, template)
        if before is not None and template.number == before.number and document.tag != before.document.tag:
            template = replace(template, number=before.number + 1)
            document = await _document(issuer, template)
        took = self._timer() - started
        logger.info(
            "revocation list made",
            extra={
                "authority": f"{namespace}/{authority.metadata.name}",
                "number": template.number,
                "entries": len(template.entries),
                "ms": round(took * 1000, 1),
            },
        )
        return _List(
            document=document,
            number=template.number,
            ends=template.next_update,
            certificate=authority.status.certificate or "",
            changes=changes,
            hour=hour_of(now),
            until=self._clock() + min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, timedelta(seconds=took * _SHARE))),
        )


async def _document(issuer: Issuer, template: ListTemplate) -> Document:
    der = await issuer.revocation_list(template)
    return await asyncio.to_thread(Document.of, der, since=template.this_update)


def _certificate(authority: CertificateAuthority) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate((authority.status.certificate or "").encode())
    except ValueError:
        raise Unavailable("The CA has no certificate yet.", _NOT_READY) from None
