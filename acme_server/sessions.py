"""What a client has seen, so that no replica shows it an older state than another one did.

The nonce of each answer carries the resourceVersion of the newest order that the client has seen or written by then.
The replica that gets this nonce waits until its watch has come so far: then its cache has all that the client has done.
What other clients did is in the cache within the delay of the watch.

A nonce without a version (newNonce, or an answer before the client has written an order) says nothing about the past:
then orders that may have changed are read live.
"""

from __future__ import annotations

import zlib
from contextvars import ContextVar
from typing import NamedTuple

import msgspec

from kms.cluster.resource_version import number


class Seen(NamedTuple):
    """The resourceVersion up to which a client has seen orders, and a tag of the order with that version."""

    version: int
    tag: int


def tag_of(name: str) -> int:
    """Three octets that tell orders apart well enough: where two have the same tag, one is read once too often."""
    return zlib.crc32(name.encode()) & 0xFFFFFF


def may_show(cached: str, name: str, seen: Seen, *, age: float, trusted: float) -> bool:
    """Whether the cached version of the order may be shown to a client whose past the watch has reached.

    The order that the client saw last must not be older than that: its event is missing, whatever the watch says.
    A version that was confirmed more than `trusted` seconds ago is not shown either. `age` is in seconds, too.
    """
    version = number(cached)
    if version is None or age > trusted:
        return False
    return version >= seen.version or seen.tag != tag_of(name)


class Session(msgspec.Struct):
    """What the client of one request has seen: `seen` before it, `latest` after it. None: unknown."""

    seen: Seen | None = None
    latest: Seen | None = None

    def begin(self, seen: Seen | None) -> None:
        """The nonce of the request says what its client has seen."""
        self.seen = self.latest = seen

    def note(self, version: str, name: str, *, written: bool) -> None:
        """The request has read or written that version of that order.

        A write is newer than everything the client has seen, so it counts even if `seen` is unknown. If it is older,
        etcd was restored from a snapshot: what the client saw before has never been, and no watch will come to it. Then
        it is unknown again what it has seen.
        """
        found = number(version)
        if found is None:
            return
        if written and self.seen is not None and found < self.seen.version:
            self.seen = self.latest = None
        elif found > self.latest.version if self.latest is not None else written:
            self.latest = Seen(found, tag_of(name))


SESSION: ContextVar[Session | None] = ContextVar("session", default=None)
"""The session of the request that this task answers, or was started by.

None: no client waits, or nonces do not say what clients have seen, as where there are no other replicas.
"""
