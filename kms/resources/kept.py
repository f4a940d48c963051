"""Annotations of Secrets in the release namespace that outlive their owner for a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from kms.resources.authorities import FormerKey, FormerRoot
from kms.resources.meta import GROUP, Key, ObjectMeta

DELETED_AT = f"{GROUP}/owner-deleted-at"
"""Since when the owner of a Secret has been gone."""
KEPT_UNTIL = f"{GROUP}/kept-until"
"""When the Secret will be deleted, unless its owner is created again."""
FORMER_KEYS = f"{GROUP}/former-keys"
"""On a signing key: status.formerKeys of its CertificateAuthority, for another one of the same name."""
FORMER_ROOTS = f"{GROUP}/former-roots"
"""On a signing key: the SHA-256 digests of status.formerRoots of its CertificateAuthority, which proves them."""
FORMER_ROOT_CERTIFICATES = f"{GROUP}/former-root-certificates"
"""On a signing key: status.formerRoots of its CertificateAuthority as JSON, which outlive the status."""
SERVED_PROFILES = f"{GROUP}/served-profiles"
"""On a signing key: the profiles that have named its CertificateAuthority, which proves their former roots."""
LONGEST_CERTIFICATE = f"{GROUP}/longest-certificate"
"""On a signing key: the longest duration of certificates that profiles of the CA have ever had, in seconds."""

_MAXIMUM_ROOTS = 64 * 1024
"""Characters of former roots. The annotations of an object may have 256 KiB."""


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


def format_former_roots(roots: Iterable[FormerRoot]) -> str:
    """The value of FORMER_ROOT_CERTIFICATES. The last ones are left out if all annotations could not hold them."""
    kept: list[FormerRoot] = []
    for each in roots:
        if sum(len(root.certificate) for root in (*kept, each)) > _MAXIMUM_ROOTS:
            break
        kept.append(each)
    return msgspec.json.encode(kept).decode() if kept else ""


def parse_former_roots(metadata: ObjectMeta) -> tuple[FormerRoot, ...]:
    """The former roots in FORMER_ROOT_CERTIFICATES; none if it is malformed."""
    try:
        return msgspec.json.decode(
            metadata.annotations.get(FORMER_ROOT_CERTIFICATES) or "[]", type=tuple[FormerRoot, ...]
        )
    except msgspec.DecodeError:
        return ()


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


@dataclass(frozen=True, slots=True)
class Departure:
    """When a profile left a CA for another, and the digest of the root that the CA had then."""

    at: datetime
    root: str


def digest_of(text: str) -> str:
    """The digest of a name or a certificate, as SERVED_PROFILES has it: 80 bits, so that hundreds fit."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def profile_digest(profile: Key) -> str:
    """The digest of a profile's namespace and name: of one that is created again, too."""
    return digest_of("/".join(profile))


def format_served_profiles(profiles: Mapping[str, Departure | None]) -> str:
    """The value of SERVED_PROFILES, by digest; None for a profile that names the CA now."""
    return " ".join(
        digest if left is None else f"{digest}={format_time(left.at)}={left.root}"
        for digest, left in sorted(profiles.items())
    )


def parse_served_profiles(metadata: ObjectMeta) -> dict[str, Departure | None]:
    """The profiles in SERVED_PROFILES, by digest. What is malformed is left out."""
    profiles: dict[str, Departure | None] = {}
    for each in metadata.annotations.get(SERVED_PROFILES, "").split():
        digest, *rest = each.split("=")
        if not rest:
            profiles[digest] = None
        elif len(rest) == len(("at", "root")) and (at := parse_time(rest[0])) is not None:
            profiles[digest] = Departure(at, rest[1])
    return profiles
