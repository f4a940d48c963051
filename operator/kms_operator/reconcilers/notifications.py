"""Hands the server the HMAC key of a receiver of notifications, and states how its delivery goes.

The server reads Secrets of the release namespace only, so the key is copied there, as it is for external account
binding. Only a Secret of a type of its own is copied: whoever may write a profile, but not read the Secrets beside it,
must not have anything else signed. How delivery goes stands in a Lease, which the server writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec

from kms.clock import Entropy
from kms.contract import NOTIFICATIONS
from kms.resources.authorities import CertificateAuthority
from kms.resources.core import Lease, Secret
from kms.resources.kinds import AUTHORITIES, LEASES, PROFILES, SECRETS, Kind
from kms.resources.notifications import (
    KEY_TYPE,
    PROGRESS,
    AuthorityNotifications,
    Progress,
    parse_target,
    progress_lease,
)
from kms.resources.profiles import CertificateProfile
from kms.resources.retained import is_reduced
from kms.resources.secret_names import (
    AUTHORITY_NOTIFICATION_KEY,
    COMPONENT,
    EAB_SECRET,
    NOTIFICATION_KEY,
    notification_key_name,
)
from kms_operator.indexes import IN_FORCE
from kms_operator.objects import internal_secret, secret_changes
from kms_operator.plan import (
    SECRET_NOT_FOUND,
    ConditionUpdate,
    Manifest,
    Plan,
    Refusal,
    merge_conditions,
    reread_interval,
    transition_events,
    with_refusals,
)
from kms_operator.shares import secret_limit_reached
from kms_operator.snapshot import Read, Snapshot

Owner = CertificateProfile | CertificateAuthority

NOT_ALLOWED: Final = "NamespaceNotAllowed"
_SHORTEST_KEY, _LONGEST_KEY = 32, 1_024
_SHORTEST: Final = timedelta(minutes=1)
_COMPONENTS: Final = frozenset({NOTIFICATION_KEY, AUTHORITY_NOTIFICATION_KEY})


@dataclass(frozen=True, slots=True)
class _Objection(Exception):
    """Why the receiver is told nothing."""

    reason: str
    message: str


def reads(owner: Owner, snapshot: Snapshot) -> Iterator[Read]:
    """The Secret of the user, and the Lease in which the server says how delivery goes."""
    section, settings = owner.spec.notifications, snapshot.settings
    if section is None or is_reduced(owner) or not settings.allows_notifications(owner.metadata.namespace):
        return
    yield Read(SECRETS, owner.metadata.namespace, section.secret_ref.name, optional=True)
    lease = progress_lease(settings.service_name, owner.metadata.uid)
    yield Read(LEASES, settings.namespace, lease, live=True, optional=True)


def plan(owner: Owner, snapshot: Snapshot, *, now: datetime, entropy: Entropy) -> Plan:  # noqa: ARG001 - all reconcilers are called alike
    """Copy the key, or delete the copy, and state the condition."""
    section = owner.spec.notifications
    existing = snapshot.internal_secret(notification_key_name(owner.metadata.uid))
    if existing is not None and existing.metadata.labels.get(COMPONENT) not in _COMPONENTS:
        existing = None
    gone = (Manifest(SECRETS, existing),) if existing is not None else ()
    recheck = reread_interval(_count_receivers(owner.metadata.namespace, snapshot))
    if section is None or is_reduced(owner):
        refused = partial(_report_refusals, owner, now=now, recheck=recheck)
        return replace(_report(owner, None, now=now), delete=gone, on_refusals=refused)
    try:
        key = _check(owner, section, existing, snapshot)
    except _Objection as error:
        update = ConditionUpdate("False", error.reason, error.message, NOTIFICATIONS)

        def report(refusals: Sequence[Refusal] = ()) -> Plan:
            """State why the receiver is told nothing, and which copy the API server keeps."""
            return _report(owner, with_refusals(update, refusals), now=now, recheck=recheck)

        return replace(report(), delete=gone, on_refusals=report)
    wanted = internal_secret(
        snapshot.settings.namespace,
        notification_key_name(owner.metadata.uid),
        component=NOTIFICATION_KEY if isinstance(owner, CertificateProfile) else AUTHORITY_NOTIFICATION_KEY,
        owner=owner,
        kind=_kind(owner),
        data={EAB_SECRET: key},
    )
    return replace(
        _report(owner, _delivery(owner, snapshot), now=now, recheck=recheck),
        apply=secret_changes(existing, wanted),
        on_refusals=partial(_report_refusals, owner, now=now, recheck=recheck),
    )


def _check(owner: Owner, section: AuthorityNotifications, existing: Secret | None, snapshot: Snapshot) -> bytes:
    """Return the key. Raises _Objection."""
    namespace, settings = owner.metadata.namespace, snapshot.settings
    if not settings.allows_notifications(namespace):
        raise _Objection(NOT_ALLOWED, _not_allowed(namespace))
    _check_receiver(section)
    name = section.secret_ref.name
    if (denial := snapshot.denial(SECRETS, (namespace, name))) is not None:
        raise _Objection(denial.reason, f"Secret {name} cannot be read: {denial}")
    secret = snapshot.secret(namespace, name)
    if secret is None:
        raise _Objection(SECRET_NOT_FOUND, f"Secret {name} does not exist (spec.notifications.secretRef)")
    if secret.type != KEY_TYPE:
        raise _Objection("InvalidSecret", f"Secret {name} has another type than {KEY_TYPE}; create it with that type")
    key = secret.data.get(EAB_SECRET, b"")
    if not _SHORTEST_KEY <= len(key) <= _LONGEST_KEY:
        bounds = f"{_SHORTEST_KEY} to {_LONGEST_KEY} octets"
        raise _Objection("InvalidSecret", f'the key "{EAB_SECRET}" of Secret {name} must have {bounds}')
    if existing is None and (message := secret_limit_reached(namespace, snapshot)):
        raise _Objection("SecretLimitReached", message)
    return key


def _check_receiver(section: AuthorityNotifications) -> None:
    try:
        parse_target(section.url)
        thresholds = section.thresholds
    except ValueError as error:
        raise _Objection("InvalidNotifications", f"spec.notifications: {error}") from None
    if any(each < _SHORTEST for each in thresholds):
        raise _Objection("InvalidNotifications", "spec.notifications.expiring has a time below 1m; write 1m or more")


def _delivery(owner: Owner, snapshot: Snapshot) -> ConditionUpdate:
    """Return how delivery goes, as the server says it."""
    name = progress_lease(snapshot.settings.service_name, owner.metadata.uid)
    lease = snapshot.get(LEASES, (snapshot.settings.namespace, name))
    progress = _progress(lease, owner.metadata.uid)
    if progress is None:
        return ConditionUpdate("Unknown", "Pending", "the server has not told the receiver anything yet", NOTIFICATIONS)
    dropped = f"; {progress.dropped} events were given up" if progress.dropped else ""
    if progress.failing_since is not None:
        since = f"{progress.failing_since:%Y-%m-%dT%H:%M:%SZ}"
        message = f"the receiver takes no events since {since}: {progress.error}; they are sent again{dropped}"
        return ConditionUpdate("False", progress.reason or "Failing", message, NOTIFICATIONS)
    if progress.delivered is None and progress.dropped:
        message = f"the receiver has not taken any event yet: {progress.error}{dropped}"
        return ConditionUpdate("False", "Refused", message, NOTIFICATIONS)
    if progress.delivered is None:
        message = "the server knows the receiver; there was nothing to tell it yet"
        return ConditionUpdate("Unknown", "NothingSent", message, NOTIFICATIONS)
    which = "all events but those that were given up" if progress.dropped else "all events"
    last = f"{progress.delivered:%Y-%m-%dT%H:%M:%SZ}"
    message = f"the receiver has got {which}; the last one at {last}{dropped}"
    return ConditionUpdate("True", "Delivered", message, NOTIFICATIONS)


def _progress(lease: Lease | None, uid: str) -> Progress | None:
    text = lease.metadata.annotations.get(PROGRESS + uid) if lease is not None else None
    try:
        return msgspec.json.decode(text, type=Progress) if text is not None else None
    except msgspec.DecodeError:
        return None


def _count_receivers(namespace: str, snapshot: Snapshot) -> int:
    """Count the profiles and CAs of the namespace with a receiver: the Secret of each is read again."""
    profiles = snapshot.by_index(PROFILES, IN_FORCE, namespace)
    authorities = (each for each in snapshot.all(AUTHORITIES) if each.metadata.namespace == namespace)
    return sum(each.spec.notifications is not None for each in (*profiles, *authorities))


def _report(owner: Owner, update: ConditionUpdate | None, *, now: datetime, recheck: timedelta | None = None) -> Plan:
    """State the condition; `recheck` is when to read the user's Secret and the Lease again."""
    old = owner.status.conditions
    conditions = merge_conditions(
        old,
        (update,) if update is not None else (),
        generation=owner.metadata.generation,
        now=now,
        keep={each.type for each in old} - {NOTIFICATIONS},
    )
    status = msgspec.structs.replace(owner.status, conditions=conditions)
    events = transition_events(old, update) if update is not None and update.reason != "Pending" else ()
    return Plan(status=status, events=events, requeue_at=now + recheck if recheck is not None else None)


def _report_refusals(owner: Owner, refusals: Sequence[Refusal], *, now: datetime, recheck: timedelta) -> Plan:
    update = ConditionUpdate("False", refusals[0].reason, refusals[0].message, NOTIFICATIONS)
    return _report(owner, update, now=now, recheck=recheck)


def _kind(owner: Owner) -> Kind[Any]:
    return PROFILES if isinstance(owner, CertificateProfile) else AUTHORITIES


def _not_allowed(namespace: str) -> str:
    return (
        f"receivers of namespace {namespace} are told nothing; to allow that, start the operator with"
        f" --notifications-from {namespace} (in the chart operator.notificationsFrom)"
    )
