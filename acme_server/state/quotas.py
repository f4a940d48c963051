"""How many accounts and orders there are, and how many there may be: etcd must not fill up.

Counted from what the survey and the watch show, in about a hundred bytes for each object.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from acme_server.problems import ProblemType, Refused
from acme_server.profiles import Profile
from kms.resources.meta import LocalRef, Resource

_RETRY_AFTER = 300


class OfProfile(Protocol):
    """The spec of what belongs to a profile."""

    @property
    def profile_ref(self) -> LocalRef:
        """The profile, in the same namespace."""
        ...


class Owned(Resource, Protocol):
    """An account or an order."""

    @property
    def spec(self) -> OfProfile:
        """What it was made with."""
        ...


class ObjectQuota:
    """Counts objects of one kind. `what` is their name for people, `maximum` how many there may be altogether.

    What `by_profile` says no to (aliases of accounts) takes room in etcd like others, and counts for no profile.
    """

    def __init__(self, what: str, *, maximum: int, by_profile: Callable[[Any], bool] = lambda _resource: True) -> None:
        self._what = what
        self.maximum = maximum
        self._by_profile = by_profile
        self._profiles: dict[int, tuple[str, str]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._unconfirmed: set[int] = set()

    def __len__(self) -> int:
        return len(self._profiles)

    def of(self, namespace: str, profile: str) -> int:
        """How many the profile has."""
        return self._counts[namespace, profile]

    def seen(self, resource: Owned, deleted: bool) -> None:  # noqa: FBT001 - the signature of the store's listeners
        """Count the object, or count it no more."""
        meta = resource.metadata
        digest = _digest(meta.uid or f"{meta.namespace}/{meta.name}")
        self._unconfirmed.discard(digest)
        if deleted:
            self._drop(digest)
        elif digest not in self._profiles:
            name = resource.spec.profile_ref.name if self._by_profile(resource) else ""
            profile = sys.intern(meta.namespace), sys.intern(name)
            self._profiles[digest] = profile
            self._counts[profile] += 1

    def missed(self) -> None:
        """Changes may have been missed: what the next survey does not confirm is gone."""
        self._unconfirmed = set(self._profiles)

    def surveyed(self) -> None:
        """Every object that there is has been seen."""
        for digest in self._unconfirmed:
            self._drop(digest)
        self._unconfirmed = set()

    def admit(self, profile: Profile, *, limit: int | None, field: str) -> None:
        """Raise Refused (rateLimited) where there must not be one more.

        `limit` is what the profile's `field` says. With status 503: it is not the client's fault, and cert-manager
        takes a 429 as the end.
        """
        if limit is not None and self.of(*profile.key) >= limit:
            raise _full(f"Profile {'/'.join(profile.key)} has the {limit} {self._what} that it may have ({field}).")
        if len(self) >= self.maximum:
            raise _full(f"There are the {self.maximum} {self._what} that this server may keep.")

    def _drop(self, digest: int) -> None:
        profile = self._profiles.pop(digest, None)
        if profile is None:
            return
        self._counts[profile] -= 1
        if not self._counts[profile]:
            del self._counts[profile]


def _full(detail: str) -> Refused:
    return Refused(ProblemType.RATE_LIMITED, detail, status=503, headers={"Retry-After": str(_RETRY_AFTER)})


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
