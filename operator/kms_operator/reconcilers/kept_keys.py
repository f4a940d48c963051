"""Secrets of the release namespace whose owner was deleted: how long they are kept, and for whom.

A key that was deleted by mistake is lost for ever, so it is kept for a time. An owner of the same kind, namespace and
name gets it back. A signing key is kept until the last certificate has ended if that is later: the server signs the
revocation list with it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from cryptography import x509

from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.durations import parse_duration
from kms.resources.kept import DELETED_AT, KEPT_UNTIL, LONGEST_CERTIFICATE, deleted_at, format_time, kept_until
from kms.resources.kinds import AUTHORITIES, PROFILES, SECRETS, Kind
from kms.resources.meta import ObjectMeta, Resource, key_of
from kms.resources.secret_names import COMPONENT, OWNER, OWNER_UID, SIGNING_KEY, TLS_CERTIFICATE
from kms_operator.indexes import ISSUER, OWNER_NAME
from kms_operator.objects import display_name, is_managed
from kms_operator.plan import Manifest
from kms_operator.snapshot import Snapshot

MARGIN = timedelta(days=1)
"""How much longer than its last certificate a signing key is kept: the certificate is on a list for that long."""
_MAXIMUM_DIGITS = 10


def keep(secret: Secret, retention: timedelta, *, now: datetime) -> tuple[Manifest, datetime]:
    """The Secret, whose owner is gone, with annotations since when that is and until when it is kept; and that time."""
    until = now + retention
    if secret.metadata.labels.get(COMPONENT) == SIGNING_KEY:
        until = max(until, _last_end(secret, now) or until)
    times = {DELETED_AT: format_time(now), KEPT_UNTIL: format_time(until)}
    metadata = msgspec.structs.replace(secret.metadata, annotations={**secret.metadata.annotations, **times})
    return Manifest(SECRETS, msgspec.structs.replace(secret, metadata=_applicable(metadata))), until


def _applicable(metadata: ObjectMeta) -> ObjectMeta:
    """The metadata that the operator owns: server-side apply takes nothing else."""
    return msgspec.structs.replace(metadata, uid="", generation=0, creation_timestamp=None)


def _last_end(secret: Secret, now: datetime) -> datetime | None:
    """When the last certificate of the CA ends and is off its list: no later than the CA itself."""
    try:
        chain = x509.load_pem_x509_certificates(secret.data.get(TLS_CERTIFICATE, b""))
    except ValueError:
        return None
    end = min(each.not_valid_after_utc for each in chain)
    longest = longest_certificate(secret)
    return (end if longest is None else min(end, now + longest)) + MARGIN


def longest_certificate(secret: Secret | None) -> timedelta | None:
    """The longest duration of certificates that the CA of the signing key has ever had; None if it is not known."""
    text = secret.metadata.annotations.get(LONGEST_CERTIFICATE, "") if secret is not None else ""
    return (
        timedelta(seconds=int(text)) if text.isascii() and text.isdigit() and len(text) <= len("9999999999") else None
    )


def longest_duration(authority: CertificateAuthority, snapshot: Snapshot, earlier: timedelta | None) -> timedelta:
    """The longest duration of certificates that profiles of the CA have now, or had `earlier`."""
    longest = earlier or timedelta(0)
    for profile in snapshot.by_index(PROFILES, ISSUER, key_of(authority)):
        try:
            longest = max(longest, parse_duration(profile.spec.certificate.duration))
        except ValueError:
            continue  # the profile is not ready, and says so
    return longest


def predecessors(owner: Resource, kind: Kind[Any], component: str, snapshot: Snapshot) -> list[Secret]:
    """The Secrets of earlier objects of the same kind, namespace and name, the latest first."""
    return sorted(
        (
            each
            for each in snapshot.by_index(SECRETS, OWNER_NAME, display_name(owner, kind))
            if each.metadata.namespace == snapshot.settings.namespace
            and is_managed(each)
            and each.metadata.labels.get(COMPONENT) == component
            and each.metadata.labels.get(OWNER_UID) != owner.metadata.uid
        ),
        key=lambda each: (_since(each), each.metadata.name),
        reverse=True,
    )


def _since(secret: Secret) -> float:
    since = deleted_at(secret.metadata)
    return since.timestamp() if since is not None else float("inf")


def is_kept_for_another(secret: Secret, owner: Resource, kind: Kind[Any]) -> bool:
    """Whether the Secret names another owner, for which it is kept, or is about to be kept, if that was deleted."""
    return bool(owner_name(secret)) and owner_name(secret) != display_name(owner, kind)


def owner_name(secret: Secret) -> str:
    """The owner that the Secret names, such as `EABCredential pki/web`."""
    return secret.metadata.annotations.get(OWNER, "")


def kept_authority(namespace: str, name: str, snapshot: Snapshot) -> Secret | None:
    """The signing key that is kept for a deleted CertificateAuthority of that name, the latest if there are several."""
    found = (
        each
        for each in snapshot.by_index(SECRETS, OWNER_NAME, f"{AUTHORITIES.kind} {namespace}/{name}")
        if each.metadata.labels.get(COMPONENT) == SIGNING_KEY and kept_until(each.metadata) is not None
    )
    return max(found, key=_since, default=None)
