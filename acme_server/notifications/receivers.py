"""Who is told what: receivers of CertificateProfiles and CertificateAuthorities that have the operator's key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Secret
from kms.resources.kinds import AUTHORITIES, PROFILES, Kind
from kms.resources.meta import Key, key_of
from kms.resources.notifications import Notifications, NotifiedEvent, Target, parse_target
from kms.resources.profiles import CertificateProfile
from kms.resources.secret_names import EAB_SECRET, notification_key_name

Owner = CertificateProfile | CertificateAuthority


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


class Receivers:
    """The receivers that can be told: the operator has copied their key. `find_key` finds a Secret by name.

    What was made of a profile or CertificateAuthority is kept until the object or the key is another one: the leader
    looks at all of them every second.
    """

    def __init__(
        self,
        profiles: Callable[[], Iterable[CertificateProfile]],
        authorities: Callable[[], Iterable[CertificateAuthority]],
        find_key: Callable[[str], Secret | None],
    ) -> None:
        self._profiles = profiles
        self._authorities = authorities
        self._find_key = find_key
        self._made: dict[str, tuple[Owner, Secret, Receiver | None]] = {}

    def __call__(self) -> Iterator[Receiver | None]:
        """All of them, and None for each owner without one, so that the caller can pause anywhere."""
        kept: dict[str, tuple[Owner, Secret, Receiver | None]] = {}
        owners: list[Owner] = [*self._profiles(), *self._authorities()]
        for owner in owners:
            uid = owner.metadata.uid
            key = self._find_key(notification_key_name(uid)) if owner.spec.notifications is not None else None
            if key is None:
                yield None
                continue
            known = self._made.get(uid)
            if known is None or known[0] is not owner or known[1] is not key:
                known = owner, key, receiver_of(owner, key)
            kept[uid] = known
            yield known[2]
        self._made = kept


def receiver_of(owner: Owner, key: Secret | None) -> Receiver | None:
    """The receiver of a profile or CertificateAuthority with the operator's copy of its key; None: it has none."""
    section, secret = owner.spec.notifications, key.data.get(EAB_SECRET) if key is not None else None
    if section is None or secret is None:
        return None
    try:
        target, thresholds = parse_target(section.url), section.thresholds
    except ValueError:
        return None  # the operator's condition says so
    return Receiver(
        uid=owner.metadata.uid,
        owner=key_of(owner),
        target=target,
        ca_bundle=section.ca_bundle,
        key=secret,
        thresholds=thresholds,
        source=f"/{_kind(owner).plural}/{owner.metadata.namespace}/{owner.metadata.name}",
        events=section.events if isinstance(section, Notifications) else (),
        authority=owner if isinstance(owner, CertificateAuthority) else None,
    )


def _kind(owner: Owner) -> Kind[Any]:
    return PROFILES if isinstance(owner, CertificateProfile) else AUTHORITIES
