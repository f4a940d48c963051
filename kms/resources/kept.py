"""Annotations of Secrets in the release namespace that outlive their owner for a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from kms.resources.authorities import FormerKey
from kms.resources.meta import GROUP, ObjectMeta

DELETED_AT = f"{GROUP}/owner-deleted-at"
"""Since when the owner of a Secret has been gone."""
KEPT_UNTIL = f"{GROUP}/kept-until"
"""When the Secret will be deleted, unless its owner is created again."""
FORMER_KEYS = f"{GROUP}/former-keys"
"""On a signing key: status.formerKeys of its CertificateAuthority, for another one of the same name."""
FORMER_ROOTS = f"{GROUP}/former-roots"
"""On a signing key: the SHA-256 digests of status.formerRoots of its CertificateAuthority, which proves them."""
LONGEST_CERTIFICATE = f"{GROUP}/longest-certificate"
"""On a signing key: the longest duration of certificates that profiles of the CA have ever had, in seconds."""


def format_time(time: datetime) -> str:
    """A time as an annotation."""
    return time.isoformat(timespec="seconds")


def parse_time(text: str | None) -> datetime | None:
    """The time in an annotation; None if it is missing or not a time with a zone."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo is not None else None


def deleted_at(metadata: ObjectMeta) -> datetime | None:
    """Since when the owner has been gone, as far as the operator has noticed."""
    return parse_time(metadata.annotations.get(DELETED_AT))


def kept_until(metadata: ObjectMeta) -> datetime | None:
    """When an object whose owner is gone will be deleted; None if that is not decided."""
    return parse_time(metadata.annotations.get(KEPT_UNTIL))


def format_former_keys(keys: Iterable[FormerKey]) -> str:
    """The value of FORMER_KEYS."""
    return " ".join(f"{each.subject_key_id}={format_time(each.not_after)}" for each in keys)


def parse_former_keys(metadata: ObjectMeta) -> Iterator[FormerKey]:
    """The former keys in FORMER_KEYS. What is malformed is left out."""
    for each in metadata.annotations.get(FORMER_KEYS, "").split():
        key_id, _, end = each.partition("=")
        not_after = parse_time(end)
        if key_id and not_after is not None:
            yield FormerKey(subject_key_id=key_id, not_after=not_after)
