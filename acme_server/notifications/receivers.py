"""Who is told what: receivers of CertificateProfiles and CertificateAuthorities that have the operator's key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.meta import Key, key_of
from kms.resources.notifications import AuthorityNotifications, Notifications, NotifiedEvent, Target, parse_target
from kms.resources.profiles import CertificateProfile
from kms.resources.secret_names import EAB_SECRET, notification_key_name


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver; `uid` is that of its owner. `ca_bundle` (PEM) verifies it, and `source` is that of its events."""

    uid: str
    owner: Key
    target: Target
    ca_bundle: str | None
    key: bytes = field(repr=False)
    thresholds: tuple[timedelta, ...]
    source: str
    events: tuple[NotifiedEvent, ...] = ()
    authority: CertificateAuthority | None = None
    """The CA whose end is told; None: the owner is a profile."""

    @property
    def namespace(self) -> str:
        """The namespace whose turn it is when this receiver is told something."""
        return self.owner[0]


def find_receivers(
    profiles: Iterable[CertificateProfile],
    authorities: Iterable[CertificateAuthority],
    find_key: Callable[[str], Secret | None],
) -> Iterator[Receiver]:
    """The receivers that can be told: the operator has copied their key. `find_key` finds a Secret by name."""
    for profile in profiles:
        told = profile.spec.notifications
        if told is not None and (found := _key(profile.metadata.uid, find_key)) is not None:
            source = f"/certificateprofiles/{profile.metadata.namespace}/{profile.metadata.name}"
            receiver = _receiver(profile, told, found, source)
            if receiver is not None:
                yield receiver
    for authority in authorities:
        section = authority.spec.notifications
        if section is not None and (found := _key(authority.metadata.uid, find_key)) is not None:
            source = f"/certificateauthorities/{authority.metadata.namespace}/{authority.metadata.name}"
            receiver = _receiver(authority, section, found, source)
            if receiver is not None:
                yield receiver


def _key(uid: str, find_key: Callable[[str], Secret | None]) -> bytes | None:
    secret = find_key(notification_key_name(uid))
    return secret.data.get(EAB_SECRET) if secret is not None else None


def _receiver(
    owner: CertificateProfile | CertificateAuthority, section: AuthorityNotifications, key: bytes, source: str
) -> Receiver | None:
    try:
        target, thresholds = parse_target(section.url), section.thresholds
    except ValueError:
        return None  # the operator's condition says so
    return Receiver(
        uid=owner.metadata.uid,
        owner=key_of(owner),
        target=target,
        ca_bundle=section.ca_bundle,
        key=key,
        thresholds=thresholds,
        source=source,
        events=section.events if isinstance(section, Notifications) else (),
        authority=owner if isinstance(owner, CertificateAuthority) else None,
    )
