"""Profiles that were deleted while accounts and orders of them exist.

Those are kept for the deletion retention, so that a profile of the same name has them again. Since when a profile has
been gone is an annotation of one of its orders or accounts: it survives restarts, and costs one write.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kms.resources.accounts import ACMEAccount
from kms.resources.deletions import Deletions
from kms.resources.kept import format_time, parse_time
from kms.resources.kinds import Kind
from kms.resources.meta import GROUP, Key, ObjectMeta
from kms.resources.orders import ACMEOrder

PROFILE_DELETED_AT = f"{GROUP}/profile-deleted-at"
"""Annotation of an ACMEOrder or ACMEAccount: since when its CertificateProfile has been gone."""

logger = logging.getLogger(__name__)

Patch = Callable[[Kind[Any], ObjectMeta, dict[str, str | None]], Awaitable[None]]
"""Sets annotations of an object; None removes one."""


@dataclass(slots=True)
class _Mark:
    """The object that carries the annotation of a profile, or is to carry it, and the time if it does."""

    kind: Kind[Any]
    metadata: ObjectMeta
    since: datetime | None


class DeletedProfiles:
    """What one run of the garbage collector learns about deleted profiles.

    `exists` returns whether the profile of that key may exist, as far as this server knows. `deletions` are those of
    profiles that this server has seen: one that came and went between two runs has an older mark.
    """

    def __init__(self, exists: Callable[[Key], bool], deletions: Deletions) -> None:
        self._exists = exists
        self._deletions = deletions
        self._known: dict[Key, bool] = {}
        self._marks: dict[Key, _Mark] = {}
        self._outdated: list[tuple[Kind[Any], ObjectMeta]] = []

    def see(self, kind: Kind[Any], resource: ACMEOrder | ACMEAccount) -> bool:
        """Take in an order or account. Returns whether its profile is gone."""
        metadata = resource.metadata
        profile = metadata.namespace, resource.spec.profile_ref.name
        since = parse_time(metadata.annotations.get(PROFILE_DELETED_AT))
        if profile not in self._known:
            self._known[profile] = self._exists(profile)
        if self._known[profile]:
            if PROFILE_DELETED_AT in metadata.annotations:
                self._outdated.append((kind, metadata))
            return False
        known = self._marks.get(profile)
        if known is None or (since is not None and (known.since is None or since < known.since)):
            self._marks[profile] = _Mark(kind, metadata, since)
        return True

    async def settle(
        self, patch: Patch, *, is_deleted: Callable[[Key], Awaitable[bool]], retention: timedelta, now: datetime
    ) -> frozenset[Key]:
        """Write since when the profiles have been gone. Returns those that have been gone for longer than `retention`.

        `is_deleted` reads the profile live: a server that missed it, or cannot decode it, must not delete anything.
        """
        for kind, metadata in self._outdated:
            await patch(kind, metadata, {PROFILE_DELETED_AT: None})
        over = set()
        for profile, mark in self._marks.items():
            if not await is_deleted(profile):
                continue
            again = self._deletions.after(profile, mark.since) if mark.since is not None else now
            if again is not None:
                await patch(mark.kind, mark.metadata, {PROFILE_DELETED_AT: format_time(again)})
                until = format_time(again + retention)
                extra = {"profile": "/".join(profile), "kept_until": until}
                logger.warning("profile deleted; its accounts and orders are kept", extra=extra)
            elif mark.since is not None and now - mark.since > retention:
                over.add(profile)
        return frozenset(over)


@dataclass(frozen=True, slots=True)
class KeptObject:
    """An order or account whose profile is gone."""

    profile: Key
    metadata: ObjectMeta


def due(kept: list[KeptObject], profiles: frozenset[Key]) -> Iterator[ObjectMeta]:
    """The objects of these profiles."""
    return (each.metadata for each in kept if each.profile in profiles)
