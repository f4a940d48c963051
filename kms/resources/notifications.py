"""`spec.notifications` of a CertificateProfile and of a CertificateAuthority, and what is known of their delivery.

The server keeps the progress of each receiver in annotations of Leases of the release namespace, which it may write
anyway; the operator reads it there for the condition `Notifications`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final, Literal, NamedTuple

from kms.pki.names import InvalidName, Name, dns_name, ip_address
from kms.resources.durations import parse_duration
from kms.resources.meta import GROUP, LocalRef, Struct, Time

NotifiedEvent = Literal["Issued", "Refused", "Revoked", "Expiring"]
KEY_TYPE = f"{GROUP}/notification-key"
"""The type of the Secret with the HMAC key: nobody can have another Secret signed with."""
PROGRESS = f"progress.{GROUP}/"
"""The prefix of the annotations; the rest of each is the UID of the owner of the receiver."""


_URL = re.compile(r"https://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?(/[!\"$-~]*)?")
_HTTPS: Final = 443
_LAST_PORT: Final = 65_535


class Target(NamedTuple):
    """Where events are sent. `host` and `path` are as in the request."""

    name: Name
    port: int
    host: str
    path: str


def parse_target(url: str) -> Target:
    """The target of an https URL. Raises ValueError with a message for people."""
    match = _URL.fullmatch(url)
    port = int(match[2] or _HTTPS) if match is not None else 0
    if match is None or not 0 < port <= _LAST_PORT:
        raise ValueError("url must be an https URL without user and fragment, such as https://events.example.com/x")
    host = match[1].strip("[]").lower()
    try:
        name = ip_address(host)
    except InvalidName:
        name = dns_name(host, wildcard=False)
    return Target(name, port, url.removeprefix("https://").partition("/")[0], match[3] or "/")


class AuthorityNotifications(Struct, frozen=True, kw_only=True):
    """A receiver, and how long before the end of a certificate it is told."""

    url: str
    secret_ref: LocalRef
    ca_bundle: str | None = None
    expiring: tuple[str, ...] = ("168h", "24h")

    @property
    def thresholds(self) -> tuple[timedelta, ...]:
        """`expiring`, longest first. Raises ValueError if one is no duration."""
        return tuple(sorted(map(parse_duration, self.expiring), reverse=True))


class Notifications(AuthorityNotifications, frozen=True, kw_only=True):
    """The receiver of a profile, and what it is told."""

    events: tuple[NotifiedEvent, ...] = ("Issued", "Refused", "Revoked", "Expiring")


class Progress(Struct, frozen=True, kw_only=True):
    """How far a receiver has been told.

    Orders up to resourceVersion `version`, which was read at `time`, and ends that were due until `expiring`.
    `failing_since`, `error` and `reason` are those of the last attempt; `dropped` counts what was given up.
    """

    version: int
    time: Time
    expiring: Time
    delivered: Time | None = None
    failing_since: Time | None = None
    error: str = ""
    reason: Literal["", "Failing", "ReceiverNotAllowed"] = ""
    dropped: int = 0


def progress_lease(service: str, uid: str) -> str:
    """The Lease of the release namespace with the progress of the receiver whose owner has this UID.

    There are sixteen, since the annotations of an object may have 256 KiB.
    """
    return f"{service}-notifications-{uid[:1].lower() if uid[:1].lower() in '0123456789abcdef' else '0'}"
